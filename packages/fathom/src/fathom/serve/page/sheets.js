/* The two sides of the page: columns on a wide screen, sheets over the conversation on a narrow one. */
import { byId } from "./dom.js";

const NARROW = matchMedia("(max-width: 64rem)");
const SIDES = ["list", "panel"];
const kept = (name) => `fathom-chat-side-${name}`;

export class Sheets {
  constructor() {
    this.open = { list: false, panel: false };
    for (const name of SIDES) {
      byId(`${name}-toggle`).addEventListener("click", () => this.toggle(name));
      document.querySelector(`[data-close="${name}"]`).addEventListener("click", () => this.close(name));
    }
    byId("shade").addEventListener("click", () => this.closeSheet());
    NARROW.addEventListener("change", () => this.arrange());
    this.arrange();
  }

  /** As the screen wants it: columns as they were left, sheets closed. */
  arrange() {
    for (const name of SIDES) {
      let shut = false;
      try { shut = localStorage.getItem(kept(name)) === "shut"; } catch { /* open */ }
      this.open[name] = !NARROW.matches && !shut;
    }
    this.show();
  }

  /** Whether a side would lie over the conversation. */
  get narrow() {
    return NARROW.matches;
  }

  toggle(name) {
    return this.open[name] ? this.close(name) : this.reveal(name);
  }

  reveal(name) {
    for (const other of SIDES) if (NARROW.matches) this.open[other] = false;
    this.from = document.activeElement; // where the focus goes back to
    this.open[name] = true;
    this.keep(name);
    this.show();
    if (NARROW.matches) document.querySelector(`[data-close="${name}"]`).focus();
  }

  close(name) {
    const inside = byId(name).contains(document.activeElement);
    this.open[name] = false;
    this.keep(name);
    this.show();
    if (!inside && !NARROW.matches) return;
    const back = this.from?.isConnected && this.from !== document.body && !byId(name).contains(this.from);
    (back ? this.from : byId(`${name}-toggle`)).focus();
  }

  /** Close whichever lies over the conversation; false if none does. */
  closeSheet() {
    const name = NARROW.matches && SIDES.find((one) => this.open[one]);
    if (name) this.close(name);
    return Boolean(name);
  }

  keep(name) {
    if (NARROW.matches) return;
    try { localStorage.setItem(kept(name), this.open[name] ? "open" : "shut"); } catch { /* forgotten */ }
  }

  show() {
    const over = NARROW.matches && SIDES.some((name) => this.open[name]);
    for (const name of SIDES) {
      const side = byId(name);
      side.toggleAttribute("data-open", this.open[name]);
      side.inert = !this.open[name];
      byId(`${name}-toggle`).setAttribute("aria-expanded", String(this.open[name]));
    }
    document.querySelector(".centre").inert = over;
    byId("shade").hidden = !over;
  }
}

/** Tabs: arrows move between them, one stop of the Tab key. Returns a function that opens one. */
export function tabs(list) {
  const all = [...list.querySelectorAll("[role=tab]")];
  const choose = (tab, focus) => {
    for (const one of all) {
      one.setAttribute("aria-selected", String(one === tab));
      one.tabIndex = one === tab ? 0 : -1;
      byId(one.getAttribute("aria-controls")).hidden = one !== tab;
    }
    if (focus) tab.focus();
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) choose(tab, false);
  });
  list.addEventListener("keydown", (event) => {
    const at = all.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    choose(all[(to + all.length) % all.length], true);
  });
  return (id) => choose(byId(id), false);
}
