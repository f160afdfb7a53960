"use strict";
/* Runs in the head, before anything is painted: the theme chosen last time, if the browser may remember. */
const Theme = {
  key: "fathom-chat-theme",
  names: ["system", "light", "dark"],
  chosen() {
    let name = null;
    try { name = localStorage.getItem(Theme.key); } catch { /* storage is off: follow the system */ }
    return Theme.names.includes(name) ? name : "system";
  },
  /** Show a theme and remember it; "system" follows the system's wish. */
  set(name) {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    try { localStorage.setItem(Theme.key, name); } catch { /* forgotten with the tab */ }
  },
};
{
  const name = Theme.chosen();
  if (name !== "system") document.documentElement.dataset.theme = name;
}
globalThis.Theme = Theme;
