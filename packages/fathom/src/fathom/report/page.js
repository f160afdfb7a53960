"use strict";
/* Brings the page to life: charts, heat map, legend, horizontal axis, theme, the search in settings. */
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const view = { runs: data.runs, axis: "step", hidden: new Set() };
  const charts = data.charts.map((spec, i) => new Chart(document.getElementById(`chart-${i}`), spec, view));
  const place = document.getElementById("heatmap");
  const map = place && data.runs.some((run) => run.loads) ? new HeatMap(place, data.runs) : null;
  const redraw = () => charts.forEach((chart) => chart.draw());

  const axis = document.getElementById("axis");
  axis.hidden = charts.length === 0;
  for (const input of axis.querySelectorAll("input")) {
    input.disabled = !data.runs.some((run) => run.rows[input.value]);
    input.checked = input.value === view.axis; /* some browsers restore the last choice on reload */
    input.addEventListener("change", () => { view.axis = input.value; redraw(); });
  }

  const legend = document.getElementById("legend");
  legend.hidden = data.runs.length < 2;
  data.runs.forEach((run, i) => {
    const button = element("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(element("i", `swatch c${i % COLOURS}`), element("span", "", run.name));
    button.addEventListener("click", () => {
      const shown = view.hidden.delete(i);
      if (!shown) view.hidden.add(i);
      button.setAttribute("aria-pressed", String(shown));
      redraw();
    });
    legend.append(button);
  });

  const theme = document.getElementById("theme");
  const label = () => { theme.textContent = Theme.dark() ? "Light" : "Dark"; theme.title = `Switch to ${theme.textContent.toLowerCase()} colours`; };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    Theme.set(Theme.dark() ? "light" : "dark");
    Theme.remember(document.documentElement.dataset.theme);
    label();
    if (map) map.draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { label(); if (map) map.draw(); });
  label();

  /* Paper is white: print in light colours, with everything unfolded that was open. */
  let before = null;
  addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme || "";
    Theme.set("light");
    if (map) map.draw();
  });
  addEventListener("afterprint", () => {
    if (before) Theme.set(before); else delete document.documentElement.dataset.theme;
    if (map) map.draw();
  });

  for (const settings of document.querySelectorAll(".settings")) {
    const find = settings.querySelector(".find");
    find.closest("label").hidden = false;
    find.addEventListener("input", () => {
      const words = find.value.trim().toLowerCase();
      for (const group of settings.querySelectorAll(".group")) {
        const table = group.querySelector("h3").textContent.toLowerCase();
        let any = false;
        for (const line of group.querySelectorAll("tbody tr")) {
          line.hidden = !(table.replace("]", ".") + line.textContent.toLowerCase()).includes(words);
          any = any || !line.hidden;
        }
        group.hidden = !any;
      }
      for (const fold of settings.querySelectorAll("details")) fold.open = words !== "";
    });
  }
}
