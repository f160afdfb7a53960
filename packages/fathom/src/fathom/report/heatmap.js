"use strict";
/* Loads of experts over time: one picture of the chosen layer, and a small one of each to choose from. */
const EVEN = 128, PER_OCTAVE = 32; /* of a level, as fathom.report.loads writes it; 0 = no token at all */
const REACH = 1; /* octaves to the end of the colours: half of the even share, twice the even share */

/* Below the even share, even, above; between them straight lines in RGB. */
const HEAT = {
  light: { below: [29, 84, 168], even: [244, 244, 242], above: [187, 62, 12], none: [205, 209, 215] },
  dark: { below: [112, 178, 255], even: [38, 45, 56], above: [255, 142, 74], none: [17, 21, 28] },
};

function heat(level, colours) {
  if (level === 0) return colours.none;
  const lean = Math.max(-1, Math.min(1, (level - EVEN) / (PER_OCTAVE * REACH)));
  const end = lean < 0 ? colours.below : colours.above, share = Math.abs(lean);
  return colours.even.map((v, i) => Math.round(v + (end[i] - v) * share));
}

function share(level) {
  if (level === 0) return "no token in this layer";
  if (level === 1) return "less than 0.07 of the even share";
  if (level === 255) return "15.7 times the even share or more";
  return `${(2 ** ((level - EVEN) / PER_OCTAVE)).toFixed(2)} of the even share`;
}

class HeatMap {
  constructor(host, runs) {
    this.host = host;
    this.runs = runs.filter((run) => run.loads);
    this.run = this.runs[0];
    this.layer = 0;
    this.build();
  }

  levels(run) {
    if (!run.levels) run.levels = Uint8Array.from(atob(run.loads.levels), (c) => c.charCodeAt(0));
    return run.levels;
  }

  build() {
    const bar = element("div");
    if (this.runs.length > 1) bar.append(this.chooser("Run", this.runs.map((r) => r.name), (i) => this.pick(this.runs[i], 0)));
    this.layers = this.chooser("Layer", this.run.loads.layers, (i) => this.pick(this.run, i));
    this.layers.querySelector("select").id = "layer";
    bar.append(this.layers, this.key());
    this.canvas = element("canvas");
    this.canvas.id = "loads-canvas";
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.addEventListener("pointermove", (e) => this.point(e));
    this.canvas.addEventListener("pointerdown", (e) => this.point(e));
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.canvas.addEventListener("keydown", (e) => this.keyed(e));
    this.canvas.addEventListener("focusout", () => { this.tip.hidden = true; });
    this.tip = element("div", "tip");
    this.tip.setAttribute("role", "status");
    this.tip.hidden = true;
    const map = element("div", "map");
    this.yAxis = element("div", "y");
    this.xAxis = element("div", "x");
    map.append(this.yAxis, this.canvas, this.xAxis);
    this.small = element("div", "layers");
    this.small.setAttribute("role", "group");
    this.small.setAttribute("aria-label", "Layers");
    const caption = element("div", "caption", "Layers, with their MaxVio at the end");
    this.host.replaceChildren(bar, map, caption, this.small, this.tip);
    this.pick(this.run, 0);
  }

  chooser(words, names, chosen) {
    const label = element("label", "control", `${words} `), select = element("select");
    names.forEach((name, i) => select.append(new Option(name, i)));
    select.addEventListener("change", () => chosen(Number(select.value)));
    label.append(select);
    return label;
  }

  key() {
    const key = element("span", "key"), canvas = element("canvas");
    this.keyCanvas = canvas;
    canvas.setAttribute("aria-hidden", "true");
    key.append("half the even share or less", canvas, "twice or more");
    return key;
  }

  pick(run, layer) {
    const other = run !== this.run || !this.small.childElementCount;
    Object.assign(this, { run, layer, place: null });
    const select = this.layers.querySelector("select");
    if (other) {
      select.replaceChildren(...run.loads.layers.map((name, i) => new Option(name, i)));
      this.small.replaceChildren(...run.loads.layers.map((name, i) => this.thumb(name, i)));
    }
    select.value = String(layer);
    this.draw();
  }

  thumb(name, i) {
    const button = element("button"), vio = element("small", "", this.run.loads.violations[i].toFixed(2));
    button.type = "button";
    button.title = `${name}: MaxVio ${this.run.loads.violations[i]} at the end`;
    button.append(element("canvas"), element("span", "", name.replace("layer ", "")), vio);
    button.addEventListener("click", () => this.pick(this.run, i));
    return button;
  }

  /* Paint one layer, a pixel a cell; experts from top to bottom, time from left to right. */
  paint(canvas, layer) {
    const { experts, steps } = this.run.loads, C = steps.length, colours = HEAT[Theme.dark() ? "dark" : "light"];
    const levels = this.levels(this.run), start = layer * experts * C;
    canvas.width = C;
    canvas.height = experts;
    const brush = canvas.getContext("2d"), picture = brush.createImageData(C, experts);
    for (let i = 0; i < experts * C; i++) {
      const [r, g, b] = heat(levels[start + i], colours);
      picture.data.set([r, g, b, 255], 4 * i);
    }
    brush.putImageData(picture, 0, 0);
  }

  draw() {
    const { experts, steps, layers, violations } = this.run.loads;
    this.paint(this.canvas, this.layer);
    this.canvas.style.height = `${Math.min(Math.max(experts * 22, 110), 384)}px`;
    const words = `Loads of ${experts} experts in ${layers[this.layer]} over ${steps.length} moments up to step ` +
      `${steps[steps.length - 1]}; MaxVio ${violations[this.layer].toFixed(2)} at the end. Arrow keys move.`;
    this.canvas.setAttribute("aria-label", words);
    this.yAxis.replaceChildren(element("span", "", "expert 1"), element("span", "", String(experts)));
    const quarters = [0, 1, 2, 3].map((q) => steps[Math.floor((q * (steps.length - 1)) / 3)]);
    const shown = steps.length > 3 ? quarters : [steps[0], steps[steps.length - 1]];
    this.xAxis.replaceChildren(...shown.map((s) => element("span", "", `step ${s.toLocaleString("en-US")}`)));
    [...this.small.children].forEach((button, i) => {
      button.setAttribute("aria-pressed", String(i === this.layer));
      this.paint(button.querySelector("canvas"), i);
    });
    this.drawKey();
  }

  drawKey() {
    const canvas = this.keyCanvas, colours = HEAT[Theme.dark() ? "dark" : "light"];
    canvas.width = 2 * PER_OCTAVE + 1;
    canvas.height = 1;
    const brush = canvas.getContext("2d");
    for (let i = 0; i < canvas.width; i++) {
      brush.fillStyle = `rgb(${heat(EVEN - PER_OCTAVE + i, colours).join(" ")})`;
      brush.fillRect(i, 0, 1, 1);
    }
  }

  point(e) {
    const bounds = this.canvas.getBoundingClientRect();
    const c = Math.floor(((e.clientX - bounds.left) / bounds.width) * this.canvas.width);
    const row = Math.floor(((e.clientY - bounds.top) / bounds.height) * this.canvas.height);
    this.show(c, row);
  }

  keyed(e) {
    const [c, row] = this.place || [this.canvas.width - 1, 0];
    const moves = { ArrowLeft: [c - 1, row], ArrowRight: [c + 1, row], ArrowUp: [c, row - 1], ArrowDown: [c, row + 1] };
    if (e.key === "Escape") this.tip.hidden = true;
    if (!(e.key in moves)) return;
    e.preventDefault();
    this.show(...moves[e.key]);
  }

  show(column, row) {
    const { experts, steps } = this.run.loads;
    const c = Math.min(Math.max(column, 0), steps.length - 1), e = Math.min(Math.max(row, 0), experts - 1);
    this.place = [c, e];
    const level = this.levels(this.run)[(this.layer * experts + e) * steps.length + c];
    const since = c ? `steps ${steps[c - 1] + 1} to ${steps[c]}` : `up to step ${steps[0]}`;
    this.tip.replaceChildren(element("b", "", `expert ${e + 1}, ${since}`), element("span", "", share(level)));
    this.tip.hidden = false;
    const x = this.canvas.offsetLeft + ((c + 0.5) / steps.length) * this.canvas.clientWidth;
    const y = this.canvas.offsetTop + ((e + 0.5) / experts) * this.canvas.clientHeight;
    const map = this.canvas.parentElement, width = this.tip.offsetWidth;
    const left = map.offsetLeft + x + 12, fits = left + width < this.host.clientWidth;
    this.tip.style.left = `${fits ? left : Math.max(left - 24 - width, 0)}px`;
    this.tip.style.top = `${map.offsetTop + y + 10}px`;
  }
}
