/* Keyboard shortcuts, and the dialog that lists them. */
import { byId, make } from "./dom.js";

/** Alt and a letter, by the key's place: on some keyboards Alt and a letter writes another one. */
export const SHORTCUTS = [
  { code: "KeyN", shown: "N", act: "fresh", help: "Start a new conversation" },
  { code: "KeyR", shown: "R", act: "regenerate", help: "Regenerate the last answer" },
  { code: "KeyK", shown: "K", act: "tokens", help: "Show or hide tokens and drafts in the text" },
  { code: "KeyL", shown: "L", act: "list", help: "Show or hide the conversations" },
  { code: "KeyP", shown: "P", act: "panel", help: "Show or hide the side panel" },
  { code: "Slash", shown: "/", act: "help", help: "Show this list" },
];

const FIXED = [
  [["Enter"], "Send the message"], [["Shift", "Enter"], "Start a new line"],
  [["Esc"], "Stop the answer; close what is open; go to the message box"],
  [["↑"], "In the empty message box: edit the last message"],
  [["←", "→", "↑", "↓"], "Among tokens: choose one and see its experts"],
];

/** @param {Record<string, () => void>} acts one for each shortcut, and `escape` */
export function listen(acts) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") { acts.escape(); return; }
    if (!event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const found = SHORTCUTS.find((one) => one.code === event.code);
    if (!found) return;
    event.preventDefault();
    acts[found.act]();
  });
}

export function list() {
  const rows = [...FIXED, ...SHORTCUTS.map((one) => [["Alt", one.shown], one.help])];
  byId("keys-list").replaceChildren(...rows.map(([keys, help]) => make("div", {},
    make("dt", {}, ...keys.map((key) => make("kbd", {}, key))), make("dd", {}, help))));
}
