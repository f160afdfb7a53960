/* The page: ties the store, the talk and what is seen of them together. */
import { info } from "./api.js";
import { Composer } from "./composer.js";
import { Talk, messagesBefore } from "./conversation.js";
import { byId, dressButtons, icon } from "./dom.js";
import { absent, sentence } from "./failure.js";
import { askKey } from "./keydialog.js";
import { list as listKeys, listen } from "./keys.js";
import { note, say, sayAnswer } from "./notice.js";
import { Panel } from "./panel.js";
import { Settings } from "./settings.js";
import { Sheets, tabs } from "./sheets.js";
import { Sidebar } from "./sidebar.js";
import { Store, newConversation } from "./store.js";
import { count } from "./units.js";
import { View, introduce } from "./view.js";

const MARKS = "fathom-chat-marks";
const AGAIN_MS = 1500; // between questions after a model that is not up yet
const ENDED = new Map([["stopped", "Answer stopped."], ["error", "The answer broke off."]]);

dressButtons();
const store = new Store(note);
const settings = new Settings(byId("settings"));
const sheets = new Sheets();
const openTab = tabs(document.querySelector("[role=tablist]"));
let shown = store.active ?? store.list()[0] ?? newConversation();
let known = null; // what the server says about its model
let marks = remembered();
let drawn = 0; // the frame in which what has arrived will be drawn

const talk = new Talk({
  store, settings, askKey: keyed, model: () => known?.model ?? "default",
  changed: () => show(),
  grew: (conversation) => { if (conversation === shown) drawn ||= requestAnimationFrame(grow); },
  finished: (conversation, answer) => {
    if (conversation !== shown) return note(`The answer in “${conversation.title}” is finished.`);
    if (answer.problem) return say(answer.problem);
    return sayAnswer(answer.content, ENDED.get(answer.finish) ?? "Answer finished.");
  },
});

const view = new View({
  edit: (index, text) => {
    const undo = talk.edit(shown, index, text);
    composer.focus();
    if (undo) note("The conversation goes on from the edited message.", { label: "Undo", act: undo });
  },
  regenerate: () => talk.regenerate(shown),
  turn: (index, by) => { shown.messages[index].shown += by; store.save(shown); show(); },
  choose,
  hurry: () => talk.busy?.hurry(),
});

const composer = new Composer({
  send: (text) => { view.follow = true; talk.send(shown, text); },
  stop: () => talk.stop(),
  editLast: () => view.editLast(),
});

const sidebar = new Sidebar({
  store, open, fresh, shown: () => shown, busy: () => talk.busy?.conversation ?? null,
  left: (conversation) => { if (talk.busy?.conversation === conversation) talk.stop(); },
});

const panel = new Panel(byId("inside"), {
  marks,
  prompt: (answer) => messagesBefore(shown, shown.messages.findIndex((one) => one.answers?.includes(answer)),
    answer.made),
  marked: (on) => {
    marks = on;
    try { localStorage.setItem(MARKS, on ? "on" : "off"); } catch { /* until the tab is closed */ }
    show();
  },
});

function remembered() {
  try { return localStorage.getItem(MARKS) === "on"; } catch { return false; }
}

/** Ask for a key; with one, the model can be met. */
async function keyed(signal) {
  const given = await askKey(signal);
  if (given && !known) await meet();
  return given;
}

function state() {
  const { busy } = talk, writing = busy?.conversation === shown;
  return { busy: Boolean(busy), writing, wait: writing ? busy.wait : "", marks };
}

/** Everything about the conversation, after it has changed. */
function show() {
  const title = shown.title || "New conversation", now = state();
  store.active = shown;
  byId("title").textContent = title;
  document.title = `${title} · ${known?.model ?? "fathom"}`;
  view.show(shown, now);
  composer.show(now.busy);
  sidebar.show();
  if (document.activeElement !== settings.system) settings.system.value = shown.system;
  showPanel(now);
}

/** Only what an answer adds while it is written; once a frame. */
function grow() {
  drawn = 0;
  const now = state();
  view.grow(now);
  if (now.writing) showPanel(now);
}

function showPanel(now) {
  const last = shown.messages.at(-1), answer = last?.answers?.[last.shown] ?? null;
  const kept = panel.experts.answer, there = shown.messages.some((one) => one.answers?.[one.shown] === kept);
  if (kept && !there) panel.experts.clear();
  panel.show(now.writing || !kept || !there ? answer : kept, now.writing ? talk.busy : undefined);
  const { stats } = answer ?? {}, used = (stats?.prompt_tokens ?? 0) + (stats?.completion_tokens ?? 0);
  byId("room").textContent = used && known ? `${count(used)} of ${count(known.context)} tokens used` : "";
}

/** Show the experts of a token; `meant`, on a phone, also brings the panel up. */
async function choose(index, token, meant) {
  const message = shown.messages[index], answer = message.answers[message.shown];
  view.mark(index, token);
  openTab("tab-inside");
  if (meant && sheets.narrow) sheets.reveal("panel");
  if (talk.busy?.answer === answer) return panel.experts.say("Wait until the answer is finished, then choose again.");
  panel.show(answer);
  await panel.experts.choose(answer, token);
  return panel.experts.element.scrollIntoView({ block: "nearest" });
}

/** @param {boolean} [stay] on the list, which on a phone lies over the conversation */
function open(conversation, stay = false) {
  shown = conversation;
  panel.experts.clear();
  show();
  if (!stay) {
    sheets.closeSheet();
    composer.focus();
  }
}

function fresh() {
  open(newConversation());
}

settings.changedSystem = (text) => { shown.system = text; store.save(shown); };
store.watch((id) => {
  if (id) store.reload(id);
  else store.load();
  shown = store.all.get(shown.id) ?? shown;
  show();
});
addEventListener("pagehide", () => { if (talk.busy) store.save(talk.busy.conversation); });

listKeys();
const help = () => byId("keys-dialog").showModal();
byId("keys-open").addEventListener("click", help);
listen({
  fresh, help, regenerate: () => talk.regenerate(shown), tokens: () => panel.toggle(),
  list: () => sheets.toggle("list"), panel: () => sheets.toggle("panel"),
  escape: () => {
    if (sheets.closeSheet()) return;
    if (talk.busy) talk.stop();
    composer.focus();
  },
});

const themeButton = byId("theme");
themeButton.addEventListener("click", () => {
  const { names } = Theme;
  Theme.set(names[(names.indexOf(Theme.chosen()) + 1) % names.length]);
  showTheme();
});
function showTheme() {
  const name = Theme.chosen();
  themeButton.replaceChildren(icon(name));
  themeButton.title = `Theme: ${name === "system" ? "as the system has it" : name}`;
  themeButton.setAttribute("aria-label", themeButton.title);
}
showTheme();

/** Ask about the model until it answers. */
async function meet() {
  try {
    known = await info();
    settings.limit(known.context);
    panel.know(known);
    byId("model").textContent = known.model;
    byId("model").title = known.line ?? "";
    introduce(known);
    show();
  } catch (failure) {
    if (failure.kind === "key") {
      if (await askKey()) return meet();
      return byId("empty").replaceChildren(sentence(failure));
    }
    const later = ["down", "unreachable", "busy"].includes(failure.kind);
    byId("empty").replaceChildren(later ? absent(failure) : sentence(failure));
    if (later) setTimeout(meet, AGAIN_MS);
  }
}

introduce(null);
show();
meet();
composer.focus();
