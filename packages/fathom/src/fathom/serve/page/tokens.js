/* An answer token by token: which were drafted and stood, which drafts fell, and one that can be chosen. */
import { make } from "./dom.js";

/**
 * @typedef {{id: number, text: string, accepted: boolean, rejected: string[]}} Token
 */

/** Tokens of a chunk, checked. @returns {Token[]} */
export function readTokens(given) {
  return (Array.isArray(given) ? given : []).filter((one) => Number.isInteger(one?.id)).map((one) => ({
    id: one.id, text: String(one.text ?? ""), accepted: one.draft === "accepted" || one.accepted === true,
    rejected: (Array.isArray(one.rejected) ? one.rejected : []).map(String),
  }));
}

/**
 * What to show for each token. The text of a token that is part of a character is U+FFFD; the character is
 * shown at the token that completes it.
 * @param {Token[]} tokens
 * @param {string} content the answer as it was sent
 */
export function shownTexts(tokens, content) {
  const shown = tokens.map((token) => token.text);
  let at = 0;
  for (let i = 0; i < tokens.length; i++) {
    if (!shown[i].includes("\ufffd")) {
      if (content.startsWith(shown[i], at)) at += shown[i].length;
      continue;
    }
    let next = i + 1;
    while (next < tokens.length && shown[next].includes("\ufffd")) next++;
    const end = next < tokens.length ? content.indexOf(shown[next], at + 1) : content.length;
    if (end <= at) continue;
    for (let part = i; part < next - 1; part++) shown[part] = "";
    shown[next - 1] = content.slice(at, end);
    at = end;
    i = next - 1;
  }
  return shown;
}

/** A token as a screen reader says it. */
export function spoken(token, text) {
  const blank = text.includes("\n") ? "line break" : text ? "space" : "part of a character";
  const words = text.trim() ? `“${text}”` : blank;
  const drafted = token.accepted ? ", drafted and accepted" : "";
  const drafts = token.rejected.map((one) => `“${one}”`).join(" ");
  const fell = drafts && `, after rejected ${drafts}`;
  return words + drafted + fell;
}

/** The tokens of one answer. One stop of the Tab key; arrows go from token to token and choose. */
export class TokenView {
  /** @param {(index: number, meant: boolean) => void} choose */
  constructor(choose) {
    this.choose = choose;
    this.chosen = -1;
    this.shown = [];
    this.element = make("div", {
      class: "tokens", role: "listbox", "aria-label": "Tokens of the answer", "aria-orientation": "horizontal",
      onclick: (event) => this.clicked(event), onkeydown: (event) => this.keyed(event),
    });
  }

  /** @param {Token[]} tokens @param {string} content */
  show(tokens, content) {
    const texts = shownTexts(tokens, content);
    let same = 0;
    while (same < texts.length && same < this.shown.length && texts[same] === this.shown[same]) same++;
    while (this.element.childElementCount > same) this.element.lastElementChild.remove();
    for (let i = same; i < texts.length; i++) this.element.append(this.option(tokens[i], texts[i], i));
    this.shown = texts;
    this.mark(this.chosen);
  }

  option(token, text, i) {
    const fell = token.rejected.map((one) => make("del", { "aria-hidden": "true" }, visible(one)));
    const classes = ["token", token.accepted ? "accepted" : "", text ? "" : "part"].filter(Boolean).join(" ");
    return make("span", {
      role: "option", class: classes, "data-index": i, tabindex: -1, "aria-selected": "false",
      "aria-label": spoken(token, text),
    }, ...fell, make("span", { class: "text" }, text ? visible(text) : "\u25e6"));
  }

  clicked(event) {
    const option = event.target.closest("[data-index]");
    if (option) this.go(Number(option.dataset.index), true);
  }

  keyed(event) {
    const last = this.element.childElementCount - 1, at = Math.max(this.chosen, 0);
    const to = {
      ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: this.near(1), ArrowUp: this.near(-1), Home: 0, End: last,
      Enter: at, " ": at,
    }[event.key];
    if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.go(Math.min(Math.max(to, 0), last), event.key === "Enter" || event.key === " ");
  }

  /** The token a line below (1) or above (-1) the chosen one. */
  near(way) {
    const options = [...this.element.children], at = Math.max(this.chosen, 0);
    const here = options[at].getBoundingClientRect();
    const beyond = (box) => (way > 0 ? box.top > here.bottom - 2 : box.bottom < here.top + 2);
    let best = at, least = Infinity;
    for (const [i, option] of options.entries()) {
      const box = option.getBoundingClientRect();
      const far = Math.abs(box.left - here.left) + 50 * Math.abs(box.top - here.top);
      if (beyond(box) && far < least) [best, least] = [i, far];
    }
    return best;
  }

  /** `meant`: clicked or entered, rather than passed on the way to another. */
  go(index, meant) {
    this.mark(index);
    this.element.children[index]?.focus();
    this.choose(index, meant);
  }

  /** Show which one is chosen; -1 for none. */
  mark(index) {
    this.element.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
    for (const stop of this.element.querySelectorAll("[tabindex='0']")) stop.tabIndex = -1;
    this.chosen = index;
    const options = this.element.children, option = options[index] ?? options[0];
    if (option) option.tabIndex = 0;
    if (options[index]) options[index].setAttribute("aria-selected", "true");
  }
}

const visible = (text) => text.replaceAll("\n", "\u21b5\n");
