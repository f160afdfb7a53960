/* Asks for the server's key. It stays in this tab. */
import { key } from "./api.js";
import { byId } from "./dom.js";

let asked = null; // one question at a time, however many requests were refused

/**
 * True once a key was given, false if the dialog was closed without one.
 * @param {AbortSignal} [signal] closes the dialog
 */
export function askKey(signal) {
  asked ??= question(signal).finally(() => { asked = null; });
  return asked;
}

function question(signal) {
  const dialog = byId("key-dialog"), field = byId("key");
  byId("key-wrong").hidden = !key.get();
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  field.focus();
  return new Promise((answered) => {
    const cancel = () => dialog.close("");
    const take = (event) => {
      event.preventDefault();
      if (!field.value.trim()) return;
      key.set(field.value.trim());
      dialog.close("given");
    };
    byId("key-form").addEventListener("submit", take);
    byId("key-cancel").addEventListener("click", cancel);
    signal?.addEventListener("abort", cancel, { once: true });
    dialog.addEventListener("close", () => {
      byId("key-form").removeEventListener("submit", take);
      byId("key-cancel").removeEventListener("click", cancel);
      field.value = "";
      answered(dialog.returnValue === "given");
    }, { once: true });
  });
}
