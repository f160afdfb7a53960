/* Conversations in localStorage, one entry each, so that a broken one harms no other. */
import { readConversation, writeConversation } from "./transfer.js";

const PREFIX = "fathom-chat/1/";
const ACTIVE = "fathom-chat-active";

/**
 * @typedef {{content: string, tokens: import("./tokens.js").Token[], stats: object|null, finish: string,
 *   problem: string}} Answer
 * @typedef {{role: "user", content: string}|{role: "assistant", answers: Answer[], shown: number}} Message
 * @typedef {{id: string, title: string, named: boolean, updated: number, system: string,
 *   messages: Message[]}} Conversation
 */

/** @returns {Conversation} */
export function newConversation() {
  return { id: fresh(), title: "", named: false, updated: Date.now(), system: "", messages: [] };
}

/** An id; crypto.randomUUID exists only where the page came over https or from this machine. */
function fresh() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((n) => n.toString(16).padStart(2, "0")).join("");
}

/** A question of the user's, and the answers that were given to it. */
export const question = (content) => ({ role: "user", content });
export const blank = () => ({ content: "", tokens: [], stats: null, finish: "", problem: "" });
export const reply = () => ({ role: "assistant", answers: [blank()], shown: 0 });

export class Store {
  /** @param {(text: string, more?: object) => void} note says what could not be kept */
  constructor(note) {
    this.note = note;
    /** @type {Map<string, Conversation>} */
    this.all = new Map();
    this.full = false;
    this.load();
  }

  load() {
    this.all.clear();
    const broken = [];
    for (const name of names()) {
      try {
        const one = readConversation(JSON.parse(localStorage.getItem(name)));
        one.id = name.slice(PREFIX.length);
        this.all.set(one.id, one);
      } catch { broken.push(name); }
    }
    if (!broken.length || this.told) return;
    this.told = true;
    const many = broken.length === 1 ? "One stored conversation is" : `${broken.length} stored conversations are`;
    const act = () => broken.forEach((name) => { try { localStorage.removeItem(name); } catch { /* off */ } });
    this.note(`${many} damaged and left out of the list.`, { label: "Delete what is damaged", act, stay: true });
  }

  /** The newest first. */
  list() {
    return [...this.all.values()].sort((a, b) => b.updated - a.updated);
  }

  /** Keep a conversation. Where the browser has no room left, without its tokens; then in this tab only. */
  save(conversation) {
    this.all.set(conversation.id, conversation);
    if (!conversation.messages.length && !conversation.system && !conversation.named) return;
    for (const tokens of [true, false]) {
      try {
        localStorage.setItem(PREFIX + conversation.id, JSON.stringify(writeConversation(conversation, tokens)));
        if (tokens) this.full = false;
        return;
      } catch { /* no room, or storage is off */ }
    }
    if (this.full) return;
    this.full = true;
    this.note("The browser has no room for more conversations. Export them, then delete old ones; until then the"
      + " newest are lost when this tab is closed.", { stay: true });
  }

  remove(id) {
    this.all.delete(id);
    try { localStorage.removeItem(PREFIX + id); } catch { /* storage is off */ }
  }

  /** Take conversations up; ids that exist already are replaced by new ones. */
  add(conversations) {
    for (const one of conversations) {
      const id = this.all.has(one.id) || !/^[\w-]{1,64}$/.test(one.id) ? fresh() : one.id;
      this.save({ ...one, id });
    }
  }

  get active() {
    try {
      return this.all.get(sessionStorage.getItem(ACTIVE) ?? localStorage.getItem(ACTIVE));
    } catch { return undefined; }
  }

  set active(conversation) {
    for (const kind of ["sessionStorage", "localStorage"]) {
      try { globalThis[kind].setItem(ACTIVE, conversation.id); } catch { /* full or off */ }
    }
  }

  /** Call back when another tab changed something. */
  watch(changed) {
    addEventListener("storage", (event) => {
      if (event.key !== null && !event.key.startsWith(PREFIX)) return;
      changed(event.key?.slice(PREFIX.length));
    });
  }

  /** Read one conversation again; undefined if it is gone. */
  reload(id) {
    this.all.delete(id);
    try {
      const text = localStorage.getItem(PREFIX + id);
      if (text) this.all.set(id, { ...readConversation(JSON.parse(text)), id });
    } catch { /* another version of this page wrote it */ }
    return this.all.get(id);
  }
}

function names() {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
  } catch { return []; } // storage is off
}
