/* How the next answer is chosen, and what is said to the model before the conversation. */
import { iconButton, make } from "./dom.js";

const KEY = "fathom-chat-settings";
const LARGEST_SEED = 2 ** 53 - 1; // the largest whole number that JSON and JavaScript both keep exactly

/** `kind` range or number; `value` is the default; null = not sent, the server's own choice. */
export const CONTROLS = [
  { name: "temperature", label: "Temperature", kind: "range", min: 0, max: 2, step: 0.05, value: 0.7,
    help: "0 always takes the likeliest token; higher is more varied." },
  { name: "top_p", label: "Top-p", kind: "range", min: 0.05, max: 1, step: 0.05, value: 0.95,
    help: "Only the likeliest tokens that together hold this probability." },
  { name: "top_k", label: "Top-k", kind: "range", min: 0, max: 200, step: 1, value: 0, off: 0,
    help: "Only this many of the likeliest tokens." },
  { name: "min_p", label: "Min-p", kind: "range", min: 0, max: 0.5, step: 0.01, value: 0, off: 0,
    help: "Only tokens at least this share as likely as the likeliest." },
  { name: "max_tokens", label: "Longest answer", kind: "number", min: 1, max: 1_000_000, step: 1, value: 512,
    unit: "tokens", help: "The answer is cut after so many." },
  { name: "seed", label: "Seed", kind: "number", min: 0, max: LARGEST_SEED, step: 1, value: null, hint: "random",
    help: "A given seed writes the same answer every time." },
];

/** A value inside its control's range; the default for anything that is no number. */
export function fit(control, value) {
  const nothing = value === null || value === "" || typeof value === "boolean";
  if (nothing || !Number.isFinite(Number(value))) return control.value;
  const steps = Math.round((Number(value) - control.min) / control.step);
  const near = Number((control.min + steps * control.step).toFixed(4));
  return Math.min(Math.max(near, control.min), control.max);
}

export class Settings {
  constructor(host) {
    this.controls = structuredClone(CONTROLS);
    this.values = { details: true, ...Object.fromEntries(this.controls.map((one) => [one.name, one.value])) };
    this.changedSystem = () => {};
    this.read();
    this.build(host);
  }

  read() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY)) ?? {};
      for (const one of this.controls) if (one.name in kept) this.values[one.name] = fit(one, kept[one.name]);
      if (kept.details === false) this.values.details = false;
    } catch { /* storage is off, or holds no JSON: the defaults stand */ }
  }

  keep() {
    try { localStorage.setItem(KEY, JSON.stringify(this.values)); } catch { /* until the tab is closed */ }
  }

  build(host) {
    this.system = make("textarea", { id: "system", rows: 4, "aria-describedby": "system-help" });
    this.system.addEventListener("input", () => this.changedSystem(this.system.value));
    this.fields = new Map();
    this.details = make("input", { type: "checkbox", id: "details", "aria-describedby": "details-help" });
    this.details.addEventListener("change", () => { this.values.details = this.details.checked; this.keep(); });
    host.replaceChildren(
      make("section", {}, make("h2", {}, make("label", { for: "system" }, "System prompt")), this.system,
        make("p", { class: "help", id: "system-help" }, "Said to the model before this conversation.")),
      make("section", { "aria-labelledby": "sampling" },
        make("div", { class: "head" }, make("h2", { id: "sampling" }, "Sampling"),
          iconButton("again", "Reset to the defaults", () => this.reset(), { words: "Reset" })),
        ...this.controls.map((one) => this.control(one))),
      make("section", {}, make("label", { class: "check", for: "details" }, this.details, "Speculation details"),
        make("p", { class: "help", id: "details-help" },
          "Ask for tokens, drafts and cache bytes with each answer. Off, the answer is all that is sent.")),
    );
    this.show();
  }

  control(one) {
    const id = `set-${one.name}`, helpId = `${id}-help`;
    const { min, max, step } = one;
    const field = make("input", {
      type: one.kind, id, min, max, step, "aria-describedby": helpId, placeholder: one.hint, inputmode: "decimal",
    });
    const out = one.kind === "range" ? make("output", { for: id })
      : one.unit && make("span", { class: "unit" }, one.unit);
    const take = () => {
      const given = field.value === "" ? one.value : fit(one, field.value);
      this.values[one.name] = given;
      this.keep();
    };
    field.addEventListener("input", () => { if (one.kind === "range") { take(); this.show(); } });
    field.addEventListener("change", () => { take(); this.show(); });
    this.fields.set(one.name, { field, out });
    return make("div", { class: `control ${one.kind}` }, make("label", { for: id }, one.label), field, out,
      make("p", { class: "help", id: helpId }, one.help));
  }

  /** Bring the fields in line with the values. */
  show() {
    for (const one of this.controls) {
      const { field, out } = this.fields.get(one.name), value = this.values[one.name];
      field.value = value ?? "";
      const words = one.off === value ? "off" : String(value);
      if (one.kind === "range") {
        out.textContent = words;
        field.setAttribute("aria-valuetext", words);
      }
    }
    this.details.checked = this.values.details;
  }

  reset() {
    for (const one of this.controls) this.values[one.name] = one.value;
    this.values.details = true;
    this.keep();
    this.show();
  }

  /** No answer can be longer than the context. */
  limit(context) {
    const longest = this.controls.find((one) => one.name === "max_tokens");
    longest.max = context;
    longest.value = Math.min(longest.value, context);
    this.fields.get("max_tokens").field.max = String(context);
    this.values.max_tokens = fit(longest, this.values.max_tokens);
    this.show();
  }

  /** The fields of a request; those at "off" are left out. */
  request() {
    const fields = {};
    for (const one of this.controls) {
      const value = this.values[one.name];
      if (value !== null && value !== one.off) fields[one.name] = value;
    }
    if (this.values.details) fields.fathom_details = true;
    return fields;
  }
}
