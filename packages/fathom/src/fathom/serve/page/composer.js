/* The message box: it grows with its text, and its button sends or stops. */
import { byId } from "./dom.js";

export class Composer {
  /** @param {{send: (text: string) => void, stop: () => void, editLast: () => boolean}} acts */
  constructor(acts) {
    this.field = byId("box");
    this.busy = false;
    byId("composer").addEventListener("submit", (event) => { event.preventDefault(); this.submit(acts); });
    byId("stop").addEventListener("click", () => { acts.stop(); this.field.focus(); });
    this.field.addEventListener("input", () => this.fit());
    this.field.addEventListener("keydown", (event) => {
      if (event.isComposing) return; // Enter then ends a word of an input method
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        this.submit(acts);
      } else if (event.key === "ArrowUp" && !this.field.value && acts.editLast()) {
        event.preventDefault();
      }
    });
    this.fit();
  }

  submit(acts) {
    const text = this.field.value.trim();
    if (this.busy || !text) return;
    this.field.value = "";
    this.fit();
    acts.send(text);
  }

  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
    byId("send").disabled = !this.field.value.trim();
  }

  show(busy) {
    const focused = document.activeElement === byId("send") || document.activeElement === byId("stop");
    this.busy = busy;
    byId("send").hidden = busy;
    byId("stop").hidden = !busy;
    if (focused) this.field.focus();
  }

  focus() {
    this.field.focus({ preventScroll: true });
  }
}
