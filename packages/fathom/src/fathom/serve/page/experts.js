/* The experts that each layer chose for one token: a table whose rows are also pictures. */
import { experts, tokenize } from "./api.js";
import { draw, icon, make } from "./dom.js";
import { sentence } from "./failure.js";
import { count } from "./units.js";

const NAMED = 16; // up to so many experts a cell has room for its number
const WIDTH = 320, HEIGHT = 20; // of a row's picture, in its own units

export class Experts {
  /** @param {(answer: object) => object[]} prompt the messages that an answer was given to */
  constructor(prompt) {
    this.prompt = prompt;
    this.info = null;
    this.found = new WeakMap(); // answer -> promise of {at, layers, experts}
    this.element = make("div", { class: "experts" });
    this.clear();
  }

  know(info) {
    this.info = info;
    if (!this.answer) this.clear();
  }

  clear() {
    this.answer = null;
    const none = this.info && !this.info.experts.some((n) => n > 0);
    this.say(none ? "This model has no experts." : "Show tokens in the text, then choose one: click it, or walk"
      + " there with the arrow keys. Each layer's experts for it appear here.");
  }

  say(words, problem = false) {
    const kind = problem ? "help problem" : "help";
    this.element.replaceChildren(make("p", { class: kind }, problem && icon("warn"), words));
  }

  /** Show a token of a finished answer. */
  async choose(answer, index) {
    Object.assign(this, { answer, index });
    if (!this.info?.experts.some((n) => n > 0)) return this.clear();
    const begun = setTimeout(() => this.current(answer, index) && this.say("Asking the model …"), 150);
    try {
      const found = await this.ask(answer);
      if (this.current(answer, index)) this.show(answer, index, found);
    } catch (failure) {
      this.found.delete(answer);
      if (this.current(answer, index)) this.say(sentence(failure), true);
    } finally {
      clearTimeout(begun);
    }
  }

  current(answer, index) {
    return this.answer === answer && this.index === index;
  }

  ask(answer) {
    if (!this.found.has(answer)) this.found.set(answer, this.fetch(answer));
    return this.found.get(answer);
  }

  /** Of the whole answer at once: no token's choice depends on a later one. */
  async fetch(answer) {
    const prompt = await tokenize(this.prompt(answer));
    const ids = [...prompt, ...answer.tokens.map((token) => token.id)];
    const found = await experts(ids.slice(0, this.info.limits?.expert_tokens)); // undefined: all of them
    return { ...found, at: prompt.length };
  }

  show(answer, index, { layers, experts: chosen, at }) {
    const token = answer.tokens[index], here = chosen[at + index];
    if (!here) {
      return this.say(`The server tells the experts of the first ${count(chosen.length)} tokens of a conversation.`
        + " Choose an earlier one.", true);
    }
    const uses = usage(chosen.slice(at), layers.length);
    const dense = this.info.experts.flatMap((n, layer) => (layers.includes(layer) ? [] : [layer]));
    const words = visible(token.text);
    const table = make("table", { class: "grid" },
      make("caption", { class: "unseen" },
        `Experts that each layer chose for the token “${token.text}”, the heaviest first`),
      make("thead", {}, make("tr", {},
        ...["Layer", "Experts", "Chosen"].map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...layers.map((layer, i) => this.row(layer, here[i] ?? [], uses[i]))));
    const how = token.accepted ? "drafted and accepted" : token.rejected.length ? "instead of a draft" : "written";
    this.element.replaceChildren(
      make("p", { class: "chosen" }, make("q", {}, words), " ",
        make("small", {}, `id ${token.id} · position ${count(at + index)} · ${how}`)),
      table,
      make("p", { class: "key", "aria-hidden": "true" }, swatch("pick"), "chosen", swatch("used"),
        "used elsewhere in this answer"),
      make("p", { class: "help" }, denseWords(dense)));
    return null;
  }

  row(layer, chosen, uses) {
    const many = this.info.experts[layer] || Math.max(0, ...chosen) + 1;
    return make("tr", {}, make("th", { scope: "row" }, String(layer)),
      make("td", { class: "picture", "aria-label": `${many} experts` }, strip(many, chosen, uses)),
      make("td", { class: "numbers" }, chosen.join(" ")));
  }
}

/** How often the answer's tokens chose each expert. [layers] of Map expert -> times */
function usage(tokens, layers) {
  const uses = Array.from({ length: layers }, () => new Map());
  for (const token of tokens) {
    token.forEach((chosen, i) => chosen.forEach((expert) => uses[i].set(expert, (uses[i].get(expert) ?? 0) + 1)));
  }
  return uses;
}

/** A row of cells, one an expert: shaded by use in the answer, filled where chosen. */
function strip(many, chosen, uses) {
  const cell = WIDTH / many, gap = Math.min(2, cell * 0.12), most = Math.max(1, ...uses.values());
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const box = (expert, given, wide = cell - gap) => draw("rect", {
    x: (expert * cell + gap / 2 - Math.max(0, wide - cell + gap) / 2).toFixed(2), y: 0.5, width: wide.toFixed(2),
    height: HEIGHT - 1, rx: Math.min(3, cell / 5).toFixed(2), ...given,
  });
  const across = (cell - gap).toFixed(2), left = (n) => (n * cell + gap / 2).toFixed(2);
  const outline = (n) => `M${left(n)} .5h${across}v${HEIGHT - 1}h-${across}z`;
  svg.append(draw("path", { class: "cell", d: Array.from({ length: many }, (_, n) => outline(n)).join("") }));
  for (const [expert, times] of uses) {
    svg.append(box(expert, { class: "used", opacity: (0.12 + 0.5 * times / most).toFixed(2) }));
  }
  chosen.forEach((expert, rank) => {
    const full = (1 - 0.24 * rank / Math.max(chosen.length - 1, 1)).toFixed(2);
    svg.append(box(expert, { class: "pick", "data-expert": expert, opacity: full }, Math.max(cell - gap, 2.5)));
  });
  if (many > NAMED) return svg;
  const number = (n) => make("span", { class: chosen.includes(n) ? "on" : "" }, String(n));
  const numbers = Array.from({ length: many }, (_, n) => number(n));
  return make("div", { class: "named", "aria-hidden": "true" }, svg, make("div", {}, ...numbers));
}

/** Spaces and line ends as signs, which a token is often made of. */
const visible = (text) => text.replaceAll(" ", "\u2423").replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5");

const swatch = (kind) => draw("svg", { viewBox: "0 0 12 12", class: "swatch" },
  draw("rect", { width: 12, height: 12, rx: 3, class: kind }));

function denseWords(dense) {
  if (!dense.length) return "";
  return dense.length === 1 ? `Layer ${dense[0]} is dense: it has no experts to choose from.`
    : `Layers ${dense.join(", ")} are dense: they have no experts to choose from.`;
}
