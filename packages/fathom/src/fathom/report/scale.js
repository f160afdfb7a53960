"use strict";
/* Numbers to places and to words: scales, round marks, axes of time. Nothing here touches the page. */
const Scale = {
  /* Round values between low and high, as near to `wanted` of them as 1, 2 and 5 times a power of ten allow. */
  marks(low, high, wanted) {
    if (!(high > low)) return [low];
    const raw = (high - low) / Math.max(wanted, 1), power = 10 ** Math.floor(Math.log10(raw));
    const away = (step) => Math.abs(Math.log((high - low) / step / wanted));
    const step = [1, 2, 5, 10].map((m) => m * power).reduce((a, b) => (away(b) < away(a) ? b : a));
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
    return found;
  },

  /* The same for a logarithmic scale: powers of ten, with 2 and 5 between where there is room. */
  logMarks(low, high, wanted) {
    const found = [];
    for (const factors of [[1], [1, 3], [1, 2, 5]]) {
      const tried = [];
      for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++) {
        for (const f of factors) {
          const v = f * 10 ** p;
          if (v >= low * 0.999 && v <= high * 1.001) tried.push(v);
        }
      }
      if (found.length === 0 || tried.length <= wanted + 2) found.splice(0, found.length, ...tried);
    }
    return found.length > 1 ? found.filter((_, i) => i % Math.ceil(found.length / (wanted + 2)) === 0)
      : Scale.marks(low, high, wanted).filter((v) => v > 0);
  },

  /* Value to place. `log` asks for positive ends. */
  make(low, high, from, to, log) {
    const t = log ? Math.log : (v) => v;
    const a = t(low), span = t(high) - a || 1;
    return (v) => from + ((t(v) - a) / span) * (to - from);
  },

  /* Time axes are counted in the unit that fits their end. */
  timeUnit(end) {
    return [[86400, "d", 3 * 86400], [3600, "h", 3 * 3600], [60, "min", 180], [1, "s", 0]].find((u) => end >= u[2]);
  },

  short(v) {
    const size = Math.abs(v);
    for (const [unit, word] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]]) {
      if (size >= unit * 0.99999) return `${+(v / unit).toPrecision(4)}${word}`;
    }
    if (size !== 0 && size < 1e-3) return v.toExponential(1).replace(".0e", "e");
    return `${+v.toPrecision(4)}`;
  },

  /* A value as a reader wants it under the cursor. */
  exact(v, percent) {
    if (percent) return `${(100 * v).toFixed(1)}%`;
    if (Number.isInteger(v)) return v.toLocaleString("en-US");
    if (Math.abs(v) < 1e-3) return v.toExponential(2);
    return Math.abs(v) < 100 ? v.toFixed(3) : v.toLocaleString("en-US", { maximumFractionDigits: 1 });
  },

  duration(s) {
    if (s < 60) return `${s.toFixed(1)} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  },

  /* Index of the ascending `sorted` whose value is nearest to v. */
  nearest(sorted, v) {
    let low = 0, high = sorted.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < v) low = middle; else high = middle;
    }
    return Math.abs(sorted[low] - v) <= Math.abs(sorted[high] - v) ? low : high;
  },

  /* Where `v` of one ascending list stands in another, between rows in proportion. */
  between(from, to, v) {
    if (!from.length) return null;
    if (v <= from[0]) return to[0];
    const last = from.length - 1;
    if (v >= from[last]) return to[last];
    let i = Scale.nearest(from, v);
    if (from[i] > v) i -= 1;
    return to[i] + ((v - from[i]) / (from[i + 1] - from[i] || 1)) * (to[i + 1] - to[i]);
  },
};
