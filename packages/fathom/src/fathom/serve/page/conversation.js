/* The course of a conversation: ask, stop, ask again, edit. One answer is written at a time. */
import { Failure, chat, pause, wellAgain } from "./api.js";
import { sentence, waiting } from "./failure.js";
import { blank, question, reply } from "./store.js";
import { readTokens } from "./tokens.js";
import { readStats } from "./transfer.js";

const SAVE_MS = 2000; // between savings of an answer that is still written
const TITLE_CHARACTERS = 60;

/** What is sent to the model to get the answer at `index`; of one that is there, `made` says after what. */
export function messagesBefore(conversation, index, made = null) {
  const words = made?.system ?? conversation.system;
  const system = words.trim() ? [{ role: "system", content: words }] : [];
  const before = conversation.messages.slice(0, index).map((message, i) => (message.role === "user" ? message
    : { role: "assistant", content: (message.answers[made?.shown[i]] ?? message.answers[message.shown]).content }));
  return [...system, ...before.filter((message) => message.content)]; // without answers that never began
}

export class Talk {
  /**
   * @param {{store: import("./store.js").Store, settings: import("./settings.js").Settings, model: () => string,
   *   askKey: () => Promise<boolean>, changed: () => void,
   *   grew: (conversation: object) => void, finished: (conversation: object, answer: object) => void}} around
   */
  constructor(around) {
    Object.assign(this, around);
    this.busy = null; // {conversation, answer, stop, wait: sentence while waiting, hurry: () => void}
  }

  /** A message of the user's, and the answer to it. */
  send(conversation, content) {
    if (this.busy || !content.trim()) return;
    conversation.messages.push(question(content), reply());
    if (!conversation.named && conversation.messages.length === 2) conversation.title = titleOf(content);
    return this.answer(conversation);
  }

  /** Another answer to the last question; the ones before it are kept beside it. */
  regenerate(conversation) {
    const last = conversation.messages.at(-1);
    if (this.busy || last?.role !== "assistant") return;
    const now = last.answers[last.shown];
    if (now.content) last.answers.push(blank());
    else last.answers[last.shown] = blank(); // nothing had arrived
    if (now.content) last.shown = last.answers.length - 1;
    return this.answer(conversation);
  }

  /** Change the question at `index` and go on from there. Returns what undoes it. */
  edit(conversation, index, content) {
    if (this.busy || !content.trim()) return null;
    const before = [...conversation.messages], { title } = conversation;
    conversation.messages.length = index;
    this.send(conversation, content);
    return () => {
      if (this.busy?.conversation === conversation) this.stop();
      conversation.messages = before;
      conversation.title = title;
      this.store.save(conversation);
      this.changed();
    };
  }

  stop() {
    this.busy?.stop.abort();
  }

  async answer(conversation) {
    const last = conversation.messages.at(-1), answer = last.answers[last.shown];
    const stop = new AbortController();
    const busy = { conversation, answer, stop, wait: "", hurry: () => {}, saved: Date.now(), began: 0 };
    this.busy = busy;
    this.store.writing = conversation;
    const before = conversation.messages.slice(0, -1);
    answer.made = { system: conversation.system, shown: before.map((message) => message.shown ?? 0) };
    conversation.updated = Date.now();
    this.store.save(conversation);
    this.changed();
    for (let again = true; again;) {
      try {
        await this.stream(busy);
        again = false;
      } catch (error) {
        again = await this.failed(busy, error);
      }
    }
    this.busy = this.store.writing = null;
    conversation.updated = Date.now();
    if (this.store.all.has(conversation.id)) this.store.save(conversation); // not if it was deleted meanwhile
    this.changed();
    this.finished(conversation, answer);
  }

  async stream(busy) {
    const { conversation, answer, stop } = busy;
    const messages = messagesBefore(conversation, conversation.messages.length - 1);
    const request = { model: this.model(), messages, ...this.settings.request() };
    for await (const { text, tokens, finish, stats, usage } of chat(request, stop.signal)) {
      busy.began ||= performance.now();
      answer.content += text;
      answer.tokens.push(...readTokens(tokens));
      if (finish) answer.finish = finish;
      if (stats || usage) answer.stats = readStats({ ...answer.stats, ...usage, ...stats });
      if (Date.now() - busy.saved > SAVE_MS) {
        busy.saved = Date.now();
        this.store.save(conversation);
      }
      this.grew(conversation);
    }
    answer.finish ||= "stop";
  }

  /** Whether to ask once more, after having waited for the server or for a key. */
  async failed(busy, error) {
    const { answer, stop } = busy;
    const failure = error instanceof Failure ? error : new Failure("page", String(error));
    if (failure.kind === "page") console.error(error);
    try {
      const early = !answer.content && !stop.signal.aborted;
      if (early && failure.kind === "key" && await this.askKey(stop.signal)) return true;
      if (early && failure.kind === "busy") return await this.countdown(busy, Math.max(failure.retryAfter, 1));
      if (early && ["down", "unreachable"].includes(failure.kind)) return await this.outage(busy, failure.kind);
    } catch (reason) {
      if (reason.kind !== "stopped") throw reason;
    }
    answer.finish = stop.signal.aborted ? "stopped" : "error";
    answer.problem = stop.signal.aborted ? "" : sentence(failure);
    return false;
  }

  async countdown(busy, seconds) {
    const hurry = new AbortController(), either = AbortSignal.any([busy.stop.signal, hurry.signal]);
    busy.hurry = () => hurry.abort();
    try {
      for (let left = seconds; left > 0; left--) {
        this.waits(busy, waiting("busy", left));
        await pause(1000, either);
      }
    } catch (reason) {
      if (busy.stop.signal.aborted) throw reason;
    }
    this.waits(busy, "");
    return true;
  }

  async outage(busy, kind) {
    this.waits(busy, waiting(kind));
    await wellAgain(busy.stop.signal).finally(() => this.waits(busy, ""));
    return true;
  }

  waits(busy, words) {
    busy.wait = words;
    if (!words) busy.hurry = () => {};
    this.grew(busy.conversation);
  }
}

function titleOf(content) {
  const line = content.trim().replace(/\s+/g, " ");
  if (line.length <= TITLE_CHARACTERS) return line;
  return `${line.slice(0, TITLE_CHARACTERS).replace(/\s\S*$/, "")} …`;
}
