/* The messages of the conversation that is shown, and the scrolling. */
import { byId, make } from "./dom.js";
import { Question, Reply } from "./message.js";
import { count } from "./units.js";

const NEAR_END = 48; // pixels; nearer than this the page follows the answer

export class View {
  /** @param {import("./message.js").Acts} acts */
  constructor(acts) {
    this.acts = acts;
    this.scroll = byId("scroll");
    this.host = byId("messages");
    this.follow = true;
    this.rows = [];
    this.scroll.addEventListener("scroll", () => this.scrolled());
    byId("latest").addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.keepUp()).observe(this.host);
  }

  /**
   * Show a conversation, anew or as it has grown.
   * @param {import("./store.js").Conversation} conversation
   * @param {{busy: boolean, writing: boolean, wait: string, marks: boolean}} now
   */
  show(conversation, now) {
    const { messages } = conversation;
    if (this.conversation !== conversation) this.follow = true;
    const other = this.conversation !== conversation;
    this.conversation = conversation;
    let same = 0;
    if (!other) while (same < this.rows.length && this.rows[same].message === messages[same]) same++;
    for (const row of this.rows.splice(same)) row.element.remove();
    for (let i = same; i < messages.length; i++) {
      const row = new (messages[i].role === "user" ? Question : Reply)(messages[i], i, this.acts);
      this.rows.push(row);
      this.host.append(row.element);
    }
    this.rows.forEach((row, i) => this.update(row, i, now));
    byId("empty").hidden = messages.length > 0;
    this.host.hidden = !messages.length;
    this.keepUp();
  }

  /** Only the last answer has changed. */
  grow(now) {
    if (this.rows.length) this.update(this.rows.at(-1), this.rows.length - 1, now);
    this.keepUp();
  }

  update(row, i, now) {
    const last = i === this.rows.length - 1;
    row.update({ ...now, last, writing: last && now.writing, wait: last ? now.wait : "" });
  }

  /** Show in the text which token is chosen, and only there. */
  mark(index, token) {
    this.rows.forEach((row, i) => { if (row instanceof Reply && i !== index) row.tokens.mark(-1); });
    this.rows[index]?.tokens?.mark(token);
  }

  editLast() {
    const row = this.rows.filter((one) => one instanceof Question).at(-1);
    if (row && !row.edit.disabled) row.open();
    return Boolean(row);
  }

  scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroll;
    this.follow = scrollHeight - scrollTop - clientHeight < NEAR_END;
    byId("latest").hidden = this.follow;
  }

  keepUp() {
    if (this.follow) this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  toEnd() {
    this.follow = true;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.scroll.scrollTo({ top: this.scroll.scrollHeight, behavior: calm ? "instant" : "smooth" });
    byId("box").focus({ preventScroll: true });
  }
}

/** What stands where no message is yet: whom one talks to. @param {object|null} info */
export function introduce(info) {
  const facts = [];
  if (info) {
    const routed = info.experts.filter((n) => n > 0);
    facts.push(["Layers", count(info.layers)], ["Context", `${count(info.context)} tokens`]);
    if (routed.length) facts.push(["Experts", `${info.experts_per_token} of ${count(Math.max(...routed))} a token`]);
    facts.push(["Drafting", info.drafts ? "by MTP" : "none"]);
    const { cache_bytes_per_token: ours, plain_cache_bytes_per_token: plain } = info;
    if (ours && plain) facts.push(["Cache", `${(plain / ours).toFixed(1)}× smaller`]);
  }
  byId("empty").replaceChildren(
    make("h2", {}, info ? `Talk to ${info.model}` : "Looking for the model …"),
    info?.line && make("p", { class: "line" }, info.line),
    make("dl", { class: "facts" },
      ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))),
    make("p", { class: "private" }, "Conversations are kept in this browser and nowhere else."));
}
