/* Conversations in localStorage, one entry each, so that a broken one harms no other. Other tabs write there, too. */
import { merged } from "./merge.js";
import { readConversation, writeConversation } from "./transfer.js";

const PREFIX = "fathom-chat/1/";
const ACTIVE = "fathom-chat-active";

/**
 * @typedef {{content: string, tokens: import("./tokens.js").Token[], stats: object|null, finish: string,
 *   problem: string, made: {system: string, shown: number[]}|null}} Answer `made`: what it was written after
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
export const blank = () => ({ content: "", tokens: [], stats: null, finish: "", problem: "", made: null });
export const reply = () => ({ role: "assistant", answers: [blank()], shown: 0 });

export class Store {
  /** @param {(text: string, more?: object) => void} note says what could not be kept */
  constructor(note) {
    this.note = note;
    /** @type {Map<string, Conversation>} */
    this.all = new Map();
    /** What each was in storage when this tab last took it up: if it is not any more, another tab wrote it. */
    this.seen = new Map();
    /** @type {Conversation|null} the one that an answer is being written to, here */
    this.writing = null;
    this.full = false;
    this.load();
  }

  load() {
    this.all.clear();
    this.seen.clear();
    if (this.writing) this.all.set(this.writing.id, this.writing);
    const broken = [];
    for (const name of names()) {
      const id = name.slice(PREFIX.length);
      if (this.writing?.id === id) continue;
      try {
        const text = localStorage.getItem(name);
        this.all.set(id, { ...readConversation(JSON.parse(text)), id });
        this.seen.set(id, text);
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

  /**
   * Keep a conversation, with what another tab has added to it meanwhile. Where the browser has no room left,
   * without its tokens; then in this tab only.
   */
  save(conversation) {
    const kept = this.joined(conversation), added = kept !== conversation;
    this.all.set(conversation.id, conversation);
    if (added && this.writing !== conversation) Object.assign(conversation, kept);
    if (!kept.messages.length && !kept.system && !kept.named) return;
    for (const tokens of [true, false]) {
      try {
        const text = JSON.stringify(writeConversation(kept, tokens));
        localStorage.setItem(PREFIX + conversation.id, text);
        // While an answer is written here, this tab does not take up what was added: it is joined each time.
        if (!added || this.writing !== conversation) this.seen.set(conversation.id, text);
        if (tokens) this.full = false;
        return;
      } catch { /* no room, or storage is off */ }
    }
    if (this.full) return;
    this.full = true;
    this.note("The browser has no room for more conversations. Export them, then delete old ones; until then the"
      + " newest are lost when this tab is closed.", { stay: true });
  }

  /** The conversation and what another tab has added; if that went another way, this one gets a place of its own. */
  joined(conversation) {
    const { id } = conversation, seen = this.seen.get(id), [text, theirs] = stored(id);
    if (!theirs || text === seen) return conversation;
    const both = merged(seen ? readConversation(JSON.parse(seen)) : null, conversation, theirs);
    if (both) return both;
    this.all.set(id, theirs);
    this.seen.set(id, text);
    conversation.id = fresh();
    return conversation;
  }

  remove(id) {
    this.all.delete(id);
    this.seen.delete(id);
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

  /** Read one conversation again, unless an answer is being written to it here: then saving will join them. */
  reload(id) {
    if (this.writing?.id === id) return;
    const [text, theirs] = stored(id);
    this.all.delete(id);
    this.seen.delete(id);
    if (!theirs) return;
    this.all.set(id, theirs);
    this.seen.set(id, text);
  }
}

/** A conversation as it is in storage: its text, and what that says; null where it says nothing. */
function stored(id) {
  try {
    const text = localStorage.getItem(PREFIX + id);
    return [text, text ? { ...readConversation(JSON.parse(text)), id } : null];
  } catch { return [null, null]; } // another version of this page wrote it, or storage is off
}

function names() {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
  } catch { return []; } // storage is off
}
