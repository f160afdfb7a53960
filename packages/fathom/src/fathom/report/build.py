"""The page, put together: one file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fathom.report import units
from fathom.report.jsonl import number
from fathom.report.markup import fold, script_json, section, sound, tag, text
from fathom.report.payload import payload
from fathom.report.run import Run, read_runs, table
from fathom.report.settings import differences_html
from fathom.report.tables import comparison_html, detail_html, tiles_html

PAGE, STYLE, EARLY = "page.html", "page.css", "theme.js"
SCRIPTS = ("scale.js", "chart.js", "heatmap.js", "page.js")  # in the order in which they need each other
COLOURS = 8  # of runs, in page.css; the ninth begins again
NOSCRIPT = "Curves and heat maps are drawn by a script, which is off here. The figures stand below."


def build_report(folders: Sequence[Path]) -> str:
    """The HTML of a page about the runs in `folders`, which is the same for the same files.

    guarantee   the page makes no request: its policy forbids any, and names its own scripts by their hash
    errors      ConfigError for a folder that holds no run, DataError for a file that cannot be read
    """
    runs = read_runs(folders)
    one = runs[0] if len(runs) == 1 else None
    data = payload(runs)
    name = one.name if one else f"{len(runs)} runs"
    body = single(one, data) if one else several(runs, data)
    script = "\n".join(_asset(part) for part in SCRIPTS)
    return filled(
        _asset(PAGE),
        {
            "policy": _policy(_asset(EARLY), script),
            "title": text(f"{name} · fathom report"),
            "style": _asset(STYLE),
            "early": _asset(EARLY),
            "heading": text(name),
            "subtitle": text(subtitle(one) if one else ", ".join(run.name for run in runs)),
            "noscript": NOSCRIPT,
            "body": body,
            "data": script_json(data),
            "script": script,
        },
    )


def single(run: Run, data: dict[str, Any]) -> str:
    """The page's body for one run."""
    return tag("section", tiles_html(run), id="figures") + pictures([run], data) + detail_html(run)


def several(runs: Sequence[Run], data: dict[str, Any]) -> str:
    """The page's body for a comparison."""
    details = "".join(
        fold(_swatch(i) + text(run.name), detail_html(run, f"run-{i + 1}-"), kind="run")
        for i, run in enumerate(runs)
    )
    return (
        section("figures", "Final figures", comparison_html(runs))
        + pictures(runs, data)
        + section("differences", "What differs", differences_html(runs), "with where each value came from")
        + section("runs", "Each run", details)
    )


def pictures(runs: Sequence[Run], data: dict[str, Any]) -> str:
    """Places for the curves and the heat map, which the script fills."""
    charts = "".join(_figure(i, chart) for i, chart in enumerate(data["charts"]))
    curves = section("curves", "Curves", tag("div", charts, kind="charts")) if charts else ""
    place = '<div id="heatmap"></div>' if any(run.loads for run in runs) else ""
    note = "tokens of each expert, relative to the even share of its layer"
    return curves + section("loads", "Expert loads over time", place, note)


def _figure(place: int, chart: dict[str, Any]) -> str:
    caption = tag("figcaption", tag("b", text(chart["title"])) + " " + tag("span", text(chart["about"])))
    kind = "chart wide" if chart["wide"] else "chart"
    return tag("figure", caption + '<div class="plot"></div>', kind=kind, id=f"chart-{place}")


def _swatch(place: int) -> str:
    return f'<i class="swatch c{place % COLOURS}" aria-hidden="true"></i> '


def subtitle(run: Run) -> str:
    """Network, sizes, device and date of one run, as far as they are known."""
    model, machine = table(run.about, "parameters"), table(run.about, "machine")
    total, active = number(model.get("total")), number(model.get("active"))
    parts = [
        run.about.get("title"),
        run.settings.get("model.name"),
        f"{units.count(total)} parameters" if total == total else None,
        f"{units.count(active)} active" if active == active else None,
        " ".join(str(machine[k]) for k in ("device", "precision") if machine.get(k)),
        units.moment(run.about.get("started")),
    ]
    return " · ".join(str(part) for part in parts if part)


def filled(template: str, values: dict[str, str]) -> str:
    """`template` with each <!--name--> replaced, in one pass: what is put in is not searched again."""
    parts = template.split("<!--")
    out = [parts[0]]
    for part in parts[1:]:
        name, _, rest = part.partition("-->")
        out += [values[name], rest]
    return sound("".join(out))


def _policy(*scripts: str) -> str:
    """A Content-Security-Policy: no request at all, and no script but these."""
    sums = (base64.b64encode(hashlib.sha256(s.encode("utf-8")).digest()).decode("ascii") for s in scripts)
    allowed = " ".join(f"'sha256-{s}'" for s in sums)
    rest = "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"


@cache
def _asset(name: str) -> str:
    return files("fathom.report").joinpath(name).read_text("utf-8")
