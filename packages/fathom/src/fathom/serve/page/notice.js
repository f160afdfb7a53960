/* What the page says outside the conversation: notes that can be undone, and what a screen reader is told. */
import { byId, iconButton, make } from "./dom.js";

const SHOWN_MS = 9000;
const SPOKEN_CHARACTERS = 1200; // of a longer answer only that it is there

/** Tell a screen reader, once, when it is not speaking. */
export function say(text) {
  const status = byId("status");
  status.replaceChildren();
  requestAnimationFrame(() => { status.textContent = text; });
}

export function sayAnswer(text, how) {
  say(text.length <= SPOKEN_CHARACTERS ? `${how} ${text}` : `${how} It has ${text.split(/\s+/).length} words.`);
}

/**
 * A note at the foot of the page.
 * @param {string} text
 * @param {{label?: string, act?: () => void, stay?: boolean}} [more] one thing that can be done about it
 */
export function note(text, { label, act, stay = false } = {}) {
  const close = () => box.remove();
  const box = make("div", { class: "note" }, make("p", {}, text));
  if (label) box.append(make("button", { type: "button", onclick: () => { close(); act(); } }, label));
  box.append(iconButton("close", "Dismiss", close));
  byId("notices").append(box);
  say(text);
  if (stay) return;
  let timer = setTimeout(close, SHOWN_MS); // not while somebody reads it or is on its buttons
  for (const name of ["pointerenter", "focusin"]) box.addEventListener(name, () => clearTimeout(timer));
  for (const name of ["pointerleave", "focusout"]) {
    box.addEventListener(name, () => { clearTimeout(timer); timer = setTimeout(close, SHOWN_MS); });
  }
}
