"use strict";
/* Runs in the head, before anything is painted: the theme chosen last time, if the browser may remember. */
const Theme = {
  key: "fathom-report-theme",
  remembered() {
    try { return localStorage.getItem(Theme.key); } catch { return null; }
  },
  remember(name) {
    try { localStorage.setItem(Theme.key, name); } catch { /* private mode, or a page from a file: forget it */ }
  },
  dark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  },
  set(name) { document.documentElement.dataset.theme = name; },
};
{
  const name = Theme.remembered();
  if (name === "dark" || name === "light") Theme.set(name);
}
