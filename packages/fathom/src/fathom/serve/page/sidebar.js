/* The list of conversations: open, rename, delete, export, import. */
import { byId, iconButton, make } from "./dom.js";
import { note } from "./notice.js";
import { download, upload } from "./transfer.js";

export class Sidebar {
  /**
   * @param {{store: import("./store.js").Store, open: (conversation: object) => void, shown: () => object,
   *   busy: () => object|null, fresh: () => void, left: (conversation: object) => void}} around
   */
  constructor(around) {
    Object.assign(this, around);
    this.host = byId("conversations");
    byId("new").addEventListener("click", () => this.fresh());
    byId("export").addEventListener("click", () => this.exportAll());
    const file = byId("import-file");
    byId("import").addEventListener("click", () => file.click());
    file.addEventListener("change", () => this.import(file));
  }

  show() {
    const focused = this.host.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    const rows = this.store.list().filter((one) => one.messages.length || one.system || one.named);
    this.host.replaceChildren(...rows.map((one) => this.row(one)));
    if (focused) this.host.querySelector(`.open[data-id="${CSS.escape(focused)}"]`)?.focus();
    byId("export").disabled = !rows.length;
  }

  row(one) {
    const title = one.title || "New conversation", writing = this.busy() === one;
    const open = make("button", {
      type: "button", class: "open", "data-id": one.id, title, "aria-current": one === this.shown() && "true",
      onclick: () => this.open(one),
    }, make("span", {}, title), writing && make("span", { class: "unseen" }, " (an answer is being written)"));
    const name = (words) => `${words}: ${title}`;
    return make("li", { class: writing ? "writing" : null }, open, make("span", { class: "tools" },
      iconButton("edit", name("Rename"), () => this.rename(one, open)),
      iconButton("save", name("Export"), () => download([one], title)),
      iconButton("remove", name("Delete"), () => this.delete(one))));
  }

  rename(one, open) {
    const field = make("input", { class: "rename", "aria-label": "Name of the conversation", maxlength: 200 });
    field.value = one.title;
    let closed = false;
    const close = (keep) => {
      if (closed) return;
      closed = true;
      const title = field.value.trim();
      if (keep && title && title !== one.title) {
        Object.assign(one, { title, named: true });
        this.store.save(one);
      }
      this.open(one, true);
      this.host.querySelector(`.open[data-id="${CSS.escape(one.id)}"]`)?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.stopPropagation();
      event.preventDefault();
      close(event.key === "Enter");
    });
    field.addEventListener("blur", () => close(true));
    open.replaceWith(field);
    field.select();
    field.focus();
  }

  delete(one) {
    const rows = this.store.list(), next = rows[rows.indexOf(one) + 1] ?? rows[rows.indexOf(one) - 1];
    this.left(one);
    this.store.remove(one.id);
    if (this.shown() === one) next ? this.open(next, true) : this.fresh();
    else this.show();
    (this.host.querySelector("[aria-current]") ?? byId("new")).focus();
    note(`“${one.title || "New conversation"}” was deleted.`, {
      label: "Undo", act: () => { this.store.save(one); this.open(one); },
    });
  }

  exportAll() {
    download(this.store.list().filter((one) => one.messages.length), "fathom-conversations");
  }

  async import(field) {
    const [file] = field.files;
    field.value = "";
    if (!file) return;
    try {
      const found = await upload(file);
      this.store.add(found);
      this.show();
      note(found.length === 1 ? "One conversation was imported." : `${found.length} conversations were imported.`);
    } catch (error) {
      note(error.message, { stay: true });
    }
  }
}
