/* One message on the page: a question that can be edited, or an answer and what can be done with it. */
import { copyButton, icon, iconButton, make } from "./dom.js";
import { Markdown } from "./markdown.js";
import { TokenView } from "./tokens.js";

/**
 * @typedef {{edit: (index: number, text: string) => void, regenerate: () => void, turn: (index: number, by: number)
 *   => void, choose: (index: number, token: number, meant: boolean) => void, hurry: () => void}} Acts
 */

export class Question {
  constructor(message, index, acts) {
    this.message = message;
    this.index = index;
    this.acts = acts;
    this.words = make("div", { class: "said" }, message.content);
    this.edit = iconButton("edit", "Edit this message", () => this.open());
    const tools = make("div", { class: "tools" }, copyButton("Copy this message", () => message.content), this.edit);
    this.article = make("article", { class: "question", "aria-label": "Your message" }, this.words, tools);
    this.element = make("li", {}, this.article);
  }

  update({ busy }) {
    this.edit.disabled = busy;
  }

  /** Put a field in the place of the words. */
  open() {
    const id = `edit-${this.index}`;
    const field = make("textarea", { id, rows: 3, class: "edit" });
    field.value = this.message.content;
    const close = () => {
      form.replaceWith(this.words);
      this.article.classList.remove("editing");
      this.edit.focus();
    };
    const done = (event) => {
      event.preventDefault();
      if (field.value.trim()) this.acts.edit(this.index, field.value);
    };
    const form = make("form", { onsubmit: done },
      make("label", { class: "unseen", for: id }, "Edit your message"), field,
      make("p", { class: "help" }, "The conversation goes on from here; what follows is replaced."),
      make("div", { class: "row" }, make("button", { type: "button", onclick: close }, "Cancel"),
        make("button", { type: "submit", class: "first" }, "Send")));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.stopPropagation(); close(); }
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) done(event);
    });
    this.words.replaceWith(form);
    this.article.classList.add("editing");
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }
}

export class Reply {
  constructor(message, index, acts) {
    this.message = message;
    this.index = index;
    this.acts = acts;
    this.markdown = new Markdown();
    this.tokens = new TokenView((token, meant) => acts.choose(index, token, meant));
    this.body = make("div", { class: "said" });
    this.pager = make("div", { class: "pager", role: "group", "aria-label": "Answers to this question" });
    this.again = iconButton("again", "Regenerate: write another answer", () => acts.regenerate());
    this.copy = copyButton("Copy this answer", () => this.answer.content);
    this.tools = make("div", { class: "tools" }, this.copy, this.again, this.pager);
    this.state = make("div", { class: "state" });
    this.article = make("article", { class: "reply", "aria-label": "Answer" }, this.body, this.state, this.tools);
    this.element = make("li", {}, this.article);
  }

  get answer() {
    return this.message.answers[this.message.shown];
  }

  /** @param {{busy: boolean, writing: boolean, last: boolean, marks: boolean
   *   wait: string}} now */
  update(now) {
    const { answer } = this;
    if (answer !== this.shownAnswer) {
      this.tokens.mark(-1);
      this.shownAnswer = answer;
    }
    const view = now.marks && answer.tokens.length ? this.tokens : this.markdown;
    if (this.body.firstChild !== view.element) this.body.replaceChildren(view.element);
    if (view === this.tokens) view.show(answer.tokens, answer.content);
    else view.show(answer.content);
    this.article.classList.toggle("writing", now.writing);
    this.article.setAttribute("aria-busy", String(now.writing));
    this.tools.hidden = now.writing || (!answer.content && !now.last && this.message.answers.length < 2);
    this.copy.hidden = !answer.content;
    this.again.hidden = !now.last;
    this.again.disabled = now.busy;
    this.page(now.busy);
    this.say(now);
  }

  page(busy) {
    const { answers, shown } = this.message, many = answers.length;
    this.pager.hidden = many < 2;
    const now = `${many}:${shown}:${busy}`;
    if (now === this.paged) return;
    const held = [...this.pager.children].indexOf(document.activeElement);
    this.paged = now;
    const turn = (by, picture, name) => {
      const button = iconButton(picture, name, () => this.acts.turn(this.index, by));
      button.disabled = busy || !(shown + by in answers);
      return button;
    };
    this.pager.replaceChildren(turn(-1, "left", "The answer before"),
      make("span", {}, make("span", { class: "unseen" }, "Answer "), `${shown + 1} of ${many}`),
      turn(1, "right", "The next answer"));
    if (held >= 0) (this.pager.querySelector("button:not(:disabled)") ?? this.again).focus();
  }

  /** What became of the answer, if it did not simply end. */
  say({ writing, wait, last, busy }) {
    const { answer } = this;
    const words = writing ? (wait || (answer.content ? "" : "dots")) : answer.problem || ENDS.get(answer.finish) || "";
    const now = `${words}|${last}|${busy}|${answer.finish}`;
    if (now === this.saying) return;
    const focused = this.state.contains(document.activeElement);
    this.saying = now;
    this.state.className = `state ${answer.problem && !writing ? "problem" : ""}`;
    if (words === "dots") {
      const dots = make("span", { class: "dots", "aria-hidden": "true" }, make("i"), make("i"), make("i"));
      this.state.replaceChildren(make("span", { class: "unseen" }, "The answer has not begun yet"), dots);
      return;
    }
    const problem = !writing && answer.finish === "error";
    const retry = problem && last && !busy
      && make("button", { type: "button", onclick: () => this.acts.regenerate() }, "Try again");
    const hurry = writing && /\d s\.$/.test(wait)
      && make("button", { type: "button", onclick: () => this.acts.hurry() }, "Try now");
    const parts = [problem && icon("warn"), words && make("p", {}, words), retry, hurry];
    this.state.replaceChildren(...parts.filter(Boolean));
    if (focused) this.state.querySelector("button")?.focus();
  }
}

const ENDS = new Map([ // by what a server or a file says: a plain object would know "constructor", too
  ["stopped", "You stopped this answer."],
  ["length", "Cut at the limit on tokens. Settings can allow longer answers."],
  ["cancelled", "The server stopped this answer. Try again."],
]);
