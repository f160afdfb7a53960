/* Elements without markup: whatever a model or a file says is only ever a text node or a quoted attribute. */

const SVG = "http://www.w3.org/2000/svg";

/** @param {string} id @returns {HTMLElement} */
export const byId = (id) => document.getElementById(id);

/**
 * An element. `on...` are listeners, `class` and the rest attributes; null, undefined and false are left out.
 * @param {string} tag
 * @param {Record<string, any>} [given]
 * @param {...(Node|string|null|undefined|false)} children strings become text nodes
 */
export function make(tag, given = {}, ...children) {
  return dress(document.createElement(tag), given, children);
}

/** The same in SVG. */
export function draw(tag, given = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), given, children);
}

function dress(node, given, children) {
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const ICONS = {
  check: "M5 12.5l4.5 4.5L19 7.5", close: "M6 6l12 12M18 6L6 18", copy: "M9 9h10v11H9zM5 15V4h10",
  dark: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z", down: "M12 5v14M6 13l6 6 6-6",
  edit: "M4 20l1-4.5L16 4.5l3.5 3.5L8.5 19zM14 6.5l3.5 3.5", left: "M14 6l-6 6 6 6", right: "M10 6l6 6-6 6",
  keys: "M3 6.5h18v11H3zM7 10h.01M11 10h.01M15 10h.01M8 14h8",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3" +
    "l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  list: "M4 6h16M4 12h16M4 18h10", load: "M12 15V4M7 8.5L12 4l5 4.5M4 16v4h16v-4",
  panel: "M3.5 5h17v14h-17zM14.5 5v14", plus: "M12 5v14M5 12h14",
  again: "M19.5 12a7.5 7.5 0 1 1-2.2-5.3L19.5 9M19.5 4v5h-5", remove: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  save: "M12 4v11M7 10.5l5 4.5 5-4.5M4 16v4h16v-4", send: "M12 19V5M6 11l6-6 6 6", stop: "M7 7h10v10H7z",
  system: "M3.5 5h17v11h-17zM9 20h6M12 16v4", warn: "M12 4l9 16H3zM12 10v4.5M12 17.5h.01",
};

/** A picture that says nothing to a screen reader: the control around it has the name. */
export function icon(name) {
  const svg = draw("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" });
  svg.append(draw("path", { d: ICONS[name] }));
  return svg;
}

/** A button with an icon; without words on it, `name` is what a screen reader says and what hovering shows. */
export function iconButton(picture, name, onclick, given = {}) {
  const { words, ...rest } = given;
  const label = words ? { title: name } : { "aria-label": name, title: name };
  return make("button", { type: "button", class: "quiet", onclick, ...label, ...rest }, icon(picture), words);
}

/** Give the page's own buttons their icons and their hints. */
export function dressButtons() {
  for (const button of document.querySelectorAll("[data-icon]")) {
    button.prepend(icon(button.dataset.icon));
    const name = button.getAttribute("aria-label");
    if (name) button.title = name;
  }
}

/** Put text on the clipboard; false where the browser does not allow it. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = make("textarea", { class: "unseen", readonly: true, "aria-hidden": "true" });
    const before = document.activeElement;
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy"); // pages over plain http have no other clipboard
    field.remove();
    before?.focus?.({ preventScroll: true });
    return done;
  }
}

/** A button that copies what `text()` says and shows for a moment that it did. */
export function copyButton(name, text) {
  const button = iconButton("copy", name, async () => {
    const done = await copy(text());
    button.replaceChildren(icon(done ? "check" : "warn"));
    button.setAttribute("aria-label", done ? "Copied" : "The browser did not allow copying");
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      button.setAttribute("aria-label", name);
    }, 1500);
  });
  return button;
}
