"use strict";
/* One chart: curves of every run over steps, tokens or time, drawn as SVG, with a cross-hair. */
const SVG = "http://www.w3.org/2000/svg";

function node(name, attributes = {}, words = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (words !== null) made.textContent = words;
  return made;
}

function element(name, kind = "", words = null) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (words !== null) made.textContent = words;
  return made;
}

const WORDS = { step: "step", tokens: "tokens", seconds: "time" };
const BAD = new Set(["spike", "not finite", "rollback", "diverged"]);
const COLOURS = 8;

class Chart {
  /* figure: its place in the page; spec: an entry of `charts`; view: {runs, axis, hidden}, shared by all */
  constructor(figure, spec, view) {
    Object.assign(this, { figure, spec, view, log: spec.log, at: null });
    this.plot = figure.querySelector(".plot");
    this.tip = element("div", "tip");
    this.tip.setAttribute("role", "status");
    this.tip.hidden = true;
    this.addScaleSwitch();
    this.plot.addEventListener("pointermove", (e) => this.point(e.clientX));
    this.plot.addEventListener("pointerdown", (e) => this.point(e.clientX));
    this.plot.addEventListener("pointerleave", () => this.leave());
    this.plot.addEventListener("keydown", (e) => this.key(e));
    this.plot.addEventListener("focusout", () => this.leave());
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  addScaleSwitch() {
    const label = element("label"), box = element("input");
    box.type = "checkbox";
    box.checked = this.log;
    box.addEventListener("change", () => { this.log = box.checked; this.draw(); });
    label.append(box, "log scale");
    this.figure.querySelector("figcaption").append(label);
  }

  /* Curves to draw: x in units of the axis, y, and the row of each point. */
  series() {
    const found = [];
    this.view.runs.forEach((run, place) => {
      const curves = run.curves[this.spec.key], x = run.rows[this.view.axis];
      if (!curves || !x || this.view.hidden.has(place)) return;
      for (const kind of ["raw", "smooth"]) {
        if (!curves[kind]) continue;
        const at = curves[kind].at || curves[kind].y.map((_, i) => i);
        const faint = kind === "raw" && Boolean(curves.smooth);
        found.push({ run, place, kind, faint, at, x: at.map((row) => x[row]), y: curves[kind].y });
      }
    });
    return found;
  }

  /* Ends of the vertical scale. A lone spike far above a smoothed curve leaves the picture at its upper edge. */
  range(all) {
    let low = Infinity, high = -Infinity, calm = -Infinity;
    for (const { y, faint } of all) {
      for (let i = 0; i < y.length; i++) {
        if (this.logged && y[i] <= 0) continue;
        low = Math.min(low, y[i]);
        high = Math.max(high, y[i]);
        const around = faint ? y.slice(Math.max(i - 2, 0), i + 3).sort((a, b) => a - b) : [y[i]];
        calm = Math.max(calm, around[around.length >> 1]);
      }
    }
    if (!(low <= high)) return [0, 1];
    if (this.logged) return [low / 1.15, high * 1.15];
    if (this.spec.zero) low = Math.min(low, 0);
    const span = calm - low;
    if (span > 0 && high > calm + span) high = calm + 0.4 * span;
    const pad = (high - low || Math.abs(high) || 1) * 0.05;
    return [this.spec.zero && low === 0 ? 0 : low - pad, high + pad];
  }

  draw() {
    const width = Math.max(Math.round(this.plot.clientWidth), 120);
    const height = this.spec.wide ? Math.min(330, Math.max(230, width * 0.4)) : 205;
    const all = this.series();
    this.logged = this.log && all.some((s) => s.y.some((v) => v > 0));
    this.box = { left: 48, right: width - 10, top: 12, bottom: height - 26 };
    const [low, high] = this.range(all);
    const rows = all.map((s) => s.run.rows[this.view.axis]); /* the same ends in every chart */
    const last = Math.max(...rows.map((x) => x[x.length - 1]));
    const first = this.view.axis === "step" ? Math.min(...rows.map((x) => x[0])) : 0;
    this.x = Scale.make(first, last > first ? last : first + 1, this.box.left, this.box.right, false);
    this.y = Scale.make(low, high, this.box.bottom, this.box.top, this.logged);
    this.drawn = all;
    const title = `${this.spec.title}: ${this.spec.about}, over ${WORDS[this.view.axis]}`;
    const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": title });
    svg.append(node("title", {}, title), node("desc", {}, this.description(all)));
    if (all.length) {
      this.axes(svg, [first, last], [low, high]);
      this.curves(svg, all);
      if (this.spec.events) this.events(svg);
    } else {
      svg.append(node("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing recorded"));
    }
    this.cross = node("g", { visibility: "hidden" });
    svg.append(this.cross);
    this.plot.replaceChildren(svg, this.tip);
    this.tip.hidden = true;
  }

  description(all) {
    const ends = all.filter((s) => !s.faint).map((s) => {
      const value = Scale.exact(s.y[s.y.length - 1], this.spec.percent);
      return `${s.run.name}: ${s.y.length} points, from ${Scale.exact(s.y[0], this.spec.percent)} to ${value}`;
    });
    return ends.join("; ") + ". Arrow keys move along the curve.";
  }

  axes(svg, [first, last], [low, high]) {
    const { left, right, top, bottom } = this.box;
    const ys = this.logged ? Scale.logMarks(low, high, 5) : Scale.marks(low, high, this.spec.wide ? 6 : 4);
    for (const v of ys) {
      const y = this.y(v), words = this.spec.percent ? `${+(100 * v).toPrecision(3)}%` : Scale.short(v);
      svg.append(node("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }));
      svg.append(node("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, words));
    }
    const time = this.view.axis === "seconds", [unit, word] = time ? Scale.timeUnit(last) : [1, ""];
    const wanted = Math.min(Math.max(Math.floor((right - left) / 85), 2), 10);
    for (const v of Scale.marks(first / unit, last / unit, wanted)) {
      const x = this.x(v * unit);
      svg.append(node("line", { class: "grid", x1: x, x2: x, y1: top, y2: bottom }));
      const anchor = x > right - 24 ? "end" : x < left + 12 ? "start" : "middle";
      const words = time ? `${+v.toPrecision(4)} ${word}` : Scale.short(v);
      svg.append(node("text", { x: Math.min(x, right), y: bottom + 17, "text-anchor": anchor }, words));
    }
  }

  curves(svg, all) {
    const { left, right, top, bottom } = this.box, clip = `clip-${this.figure.id}`;
    const path = node("clipPath", { id: clip });
    path.append(node("rect", { x: left, y: top - 2, width: right - left + 4, height: bottom - top + 4 }));
    const inside = node("g", { "clip-path": `url(#${clip})` });
    svg.append(path, inside);
    for (const s of all) {
      const places = s.x.map((x, i) => [this.x(x), this.logged && s.y[i] <= 0 ? bottom + 9 : this.y(s.y[i])]);
      const kind = `curve c${s.place % COLOURS}${s.faint ? " faint" : ""}`;
      const dashes = s.place >= COLOURS ? { "stroke-dasharray": "6 3" } : {};
      const d = places.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
      inside.append(node("path", { class: kind, d, "data-run": s.place, "data-kind": s.kind,
        "data-points": s.y.length, ...dashes }));
      if (s.y.length > 40 || s.faint) continue;
      for (const [x, y] of places) inside.append(node("circle", { class: `dot c${s.place % COLOURS}`, cx: x, cy: y, r: 2.6 }));
    }
  }

  /* Spikes, rollbacks and resumptions: dashed lines with a flag; their words appear under the cursor. */
  events(svg) {
    const { top, bottom } = this.box;
    this.marked = [];
    this.view.runs.forEach((run, place) => {
      if (this.view.hidden.has(place) || !run.rows[this.view.axis]) return;
      for (const event of run.events) {
        const x = this.x(Scale.between(run.rows.step, run.rows[this.view.axis], event.step));
        if (!Number.isFinite(x)) continue;
        const kind = BAD.has(event.kind) ? "bad" : `c${place % COLOURS}`;
        const group = node("g", { class: `event ${kind}`, "data-kind": event.kind });
        group.append(node("title", {}, `step ${event.step}: ${event.kind} ${event.detail}`));
        group.append(node("line", { class: "tick", x1: x, x2: x, y1: top, y2: bottom }));
        group.append(node("path", { class: "flag", d: `M${x - 4} ${top - 8}h8l-4 7z` }));
        svg.append(group);
        this.marked.push({ x, event, run });
      }
    });
  }

  point(clientX) {
    const bounds = this.plot.getBoundingClientRect(), lead = this.drawn.find((s) => !s.faint) || this.drawn[0];
    if (!lead) return;
    const finest = this.drawn.find((s) => s.place === lead.place && s.kind === "raw") || lead;
    const pixels = finest.x.map(this.x);
    this.show(finest, Scale.nearest(pixels, clientX - bounds.left));
  }

  key(e) {
    const lead = this.drawn.find((s) => s.kind === "raw");
    if (!lead) return;
    const last = lead.x.length - 1, now = this.at === null ? last : this.at, far = Math.max(Math.round(last / 20), 1);
    const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last, PageUp: now - far, PageDown: now + far };
    if (e.key === "Escape") this.leave();
    if (!(e.key in moves)) return;
    e.preventDefault();
    this.show(lead, Math.min(Math.max(moves[e.key], 0), last));
  }

  leave() {
    this.at = null;
    this.tip.hidden = true;
    this.cross.setAttribute("visibility", "hidden");
  }

  /* The cross-hair at one point of one curve, and what every other curve says nearest to it. */
  show(lead, i) {
    this.at = i;
    const at = lead.x[i], x = this.x(at), { top, bottom } = this.box, rows = lead.run.rows, row = lead.at[i];
    this.cross.replaceChildren(node("line", { class: "cross", x1: x, x2: x, y1: top, y2: bottom }));
    this.cross.setAttribute("visibility", "visible");
    const where = [`step ${rows.step[row].toLocaleString("en-US")}`];
    if (rows.tokens) where.push(`${Scale.short(rows.tokens[row])} tokens`);
    if (rows.seconds) where.push(Scale.duration(rows.seconds[row]));
    this.tip.replaceChildren(element("b", "", where.join(" · ")));
    const several = this.view.runs.length > 1;
    for (const s of this.drawn) {
      const j = Scale.nearest(s.x, at), line = element("div");
      const far = Math.abs(this.x(s.x[j]) - x) > Math.max(12, (this.box.right - this.box.left) / 20);
      if (far && s.place !== lead.place) continue;
      const name = [several ? s.run.name : "", s.kind === "smooth" ? `mean of ${s.run.width} around` : several ? "" : "this step"];
      line.append(element("i", `swatch c${s.place % COLOURS}`), element("span", "", name.filter(Boolean).join(", ")));
      line.append(element("span", "", Scale.exact(s.y[j], this.spec.percent)));
      this.tip.append(line);
      this.cross.append(node("circle", { class: `dot c${s.place % COLOURS}`, cx: this.x(s.x[j]), cy: this.y(s.y[j]), r: 3.2 }));
    }
    for (const { x: place, event, run } of this.spec.events ? this.marked : []) {
      if (Math.abs(place - x) > 6) continue;
      const words = `${several ? run.name + ", " : ""}step ${event.step}: ${event.kind}. ${event.detail}`;
      this.tip.append(element("div", "", words));
    }
    this.tip.hidden = false;
    const width = this.tip.offsetWidth, room = this.plot.clientWidth;
    this.tip.style.left = `${x + 14 + width < room ? x + 14 : Math.max(x - 14 - width, 0)}px`;
    this.tip.style.top = `${top + 4}px`;
  }
}
