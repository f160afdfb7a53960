/* Inside an answer: how fast it was written, what drafting saved, and what its cache costs. */
import { make } from "./dom.js";
import { Experts } from "./experts.js";
import { bytes, count, percent } from "./units.js";

export class Panel {
  /** @param {HTMLElement} host @param {{prompt: Function, marks: boolean, marked: (on: boolean) => void}} around */
  constructor(host, { prompt, marks, marked }) {
    this.info = null;
    this.experts = new Experts(prompt);
    this.speed = make("dl", { class: "tiles" });
    this.marks = make("input", { type: "checkbox", id: "marks", role: "switch" });
    this.marks.checked = marks;
    this.marks.addEventListener("change", () => marked(this.marks.checked));
    this.drafts = make("div");
    this.cache = make("div");
    const text = (name, words) => make(name, {}, words);
    this.legend = make("ul", { class: "legend", "aria-label": "Marks in the text" },
      make("li", {}, make("span", { class: "token accepted" }, "kept"), "drafted and accepted"),
      make("li", {}, make("span", { class: "token" }, make("del", {}, "fell"), "new"),
        "a draft that fell, then its replacement"),
      make("li", {}, make("span", { class: "token" }, "plain"), "written without a draft"));
    host.replaceChildren(
      make("section", {}, make("h2", {}, "This answer"), this.speed),
      make("section", {}, text("h2", "Drafted tokens"), this.drafts,
        make("label", { class: "check", for: "marks" }, this.marks, "Show tokens and drafts in the text"),
        this.legend),
      make("section", {}, text("h2", "Cache"), this.cache),
      make("section", {}, text("h2", "Experts"), this.experts.element),
    );
    this.show(null);
  }

  /** @param {object} info what /fathom/info says */
  know(info) {
    this.info = info;
    this.experts.know(info);
    this.show(this.answer ?? null);
  }

  toggle() {
    this.marks.click();
  }

  /**
   * @param {import("./store.js").Answer|null} answer
   * @param {{began: number}} [writing] since when it is being written
   */
  show(answer, writing) {
    this.answer = answer;
    const stats = answer?.stats, tokens = answer?.tokens ?? [];
    const written = stats?.completion_tokens || tokens.length;
    const seconds = writing?.began ? (performance.now() - writing.began) / 1000 : 0;
    const speed = stats?.tokens_per_second || (seconds > 0.5 ? written / seconds : 0);
    const fell = tokens.reduce((sum, token) => sum + token.rejected.length, 0);
    const stood = tokens.filter((token) => token.accepted).length;
    const accepted = stats?.drafted ? stats.accepted : stood, drafted = stats?.drafted || stood + fell;
    const prompt = stats?.prompt_tokens ?? 0;
    tiles(this.speed, [
      ["Tokens/s", speed ? speed.toFixed(1) : "–"], ["Answer", written ? count(written) : "–", "tokens"],
      ["Prompt", prompt ? count(prompt) : "–", "tokens"],
    ]);
    this.showDrafts(drafted, accepted);
    this.showCache(stats, prompt + written);
    this.legend.hidden = !this.marks.checked;
  }

  showDrafts(drafted, accepted) {
    if (this.info && !this.info.drafts) return this.drafts.replaceChildren(help("This model drafts no tokens."));
    if (!drafted) {
      return this.drafts.replaceChildren(help("How many tokens were drafted ahead, and how many of them stood."));
    }
    return this.drafts.replaceChildren(
      make("p", { class: "figure" },
        make("span", {}, make("b", {}, count(accepted)), ` of ${count(drafted)} drafted tokens accepted`),
        make("span", { class: "share" }, percent(accepted / drafted))),
      bar(accepted / drafted, "drafts"));
  }

  showCache(stats, positions) {
    const perToken = this.info?.cache_bytes_per_token ?? 0, perPlain = this.info?.plain_cache_bytes_per_token ?? 0;
    const ours = stats?.cache_bytes || positions * perToken, plain = stats?.plain_cache_bytes || positions * perPlain;
    if (!ours || !plain) {
      return this.cache.replaceChildren(
        help("Bytes held for an answer, against plain attention with the same heads."));
    }
    const times = plain / ours, rows = [["Latent attention", ours, "ours"], ["Plain attention", plain, "plain"]];
    const most = Math.max(ours, plain);
    return this.cache.replaceChildren(
      make("p", { class: "figure" }, make("span", {},
        make("b", {}, `${times >= 10 ? times.toFixed(0) : times.toFixed(1)}×`), " smaller than plain attention's")),
      make("dl", { class: "bars" }, ...rows.map(([name, n, kind]) => make("div", {}, make("dt", {}, name),
        make("dd", {}, bytes(n)), make("dd", { "aria-hidden": "true" }, bar(n / most, kind))))));
  }
}

const help = (words) => make("p", { class: "help" }, words);

function bar(share, kind) {
  const fill = make("i");
  fill.style.width = `${Math.max(Math.min(share, 1), 0.004) * 100}%`;
  return make("div", { class: `meter ${kind}`, "aria-hidden": "true" }, fill);
}

function tiles(host, rows) {
  if (host.childElementCount !== rows.length) {
    host.replaceChildren(...rows.map(([name]) => make("div", {}, make("dt", {}, name), make("dd"))));
  }
  rows.forEach(([, value, unit], i) => {
    const words = unit && value !== "–" ? [value, make("small", {}, ` ${unit}`)] : [value];
    host.children[i].lastChild.replaceChildren(...words);
  });
}
