"""The page: one HTML file beside its figures, without scripts, readable on a phone and in the dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from hhdelay import __version__
from hhdelay.config.load import load_recipe
from hhdelay.config.schema import leaves
from hhdelay.reproduce.finding import ABSTRACT, FOUND, NOT_FOUND, OURS, RESERVED, TOO_SHORT, Finding
from hhdelay.reproduce.pictures import FOLDER, PICTURES, Picture, commands
from hhdelay.reproduce.plan import Plan

PAPER = "https://arxiv.org/abs/1202.3539"
CLASSES = {FOUND: "found", RESERVED: "reserved", NOT_FOUND: "not", TOO_SHORT: "short"}
SEARCH = "search"       # the one figure that another command draws
HEADS = {
    ABSTRACT: ("The claims of the abstract", "In our words; the criteria are ours too."),
    OURS: ("Checks of ours", "What one has to know to read the claims above."),
}
ABOUT = (
    "Wang, Zhang, Perc and Chen report that the firing of delay-coupled noisy Hodgkin-Huxley neurons becomes "
    "regular at several delays. What we could read of the paper ends before its model: equations' constants, "
    "synapses, bias, noise, strengths and ranges here are <a href='#ours'>choices of ours</a>. Among five "
    "working points tried first this one was kept because its maxima are the clearest. So this page "
    "reproduces the phenomenon, and no figure of the paper.",
    "We speak of <em>delay-tuned coherence</em>: the delay is what is tuned. R is the mean of the "
    "inter-spike intervals over their standard deviation; after R stands its 95 % interval, after ± a "
    "standard error. Read the maxima together with <a href='#sustained-by-noise'>what sustains the "
    "firing</a>: where the map carries fine strokes, the pair goes on firing by itself when the noise stops.",
)
SHORT = ("These runs are too short and too coarse to judge by. Leave out <code>--quick</code>, and give "
         "another folder, for a verdict.")  # fmt: skip
ASK_SEARCH = ("Do other settings have several maxima that noise alone sustains? This page does not know; "
              "<code>hhdelay search --out search</code> scans for them, and <code>hhdelay reproduce --search "
              "search</code> adds what it found.")  # fmt: skip


def page(plan: Plan, found: Sequence[Finding], folder: Path) -> str:
    """The HTML of a gallery whose figures lie in folder/figures."""
    style = files("hhdelay.reproduce").joinpath("page.css").read_text("utf-8")
    short = [] if plan.judged else [f"<strong>{SHORT}</strong>"]
    parts = [
        "<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        "<title>Delay-tuned coherence of Hodgkin-Huxley neurons</title>", f"<style>\n{style}</style>",
        "</head>", "<body>", "<main>", "<h1>Delay-tuned coherence of Hodgkin-Huxley neurons</h1>",
        f'<p class="soft">After <a href="{PAPER}">arXiv:1202.3539</a>, by hhdelay {__version__}</p>',
        *(f"<p>{text}</p>" for text in (*short, *ABOUT)),
        *_table(found),
    ]  # fmt: skip
    shown: set[str] = set()
    for origin, (title, text) in HEADS.items():
        parts += [f"<h2>{title}</h2>", f'<p class="soft">{text}</p>']
        for one in found:
            if one.origin == origin:
                parts += _article(plan, one, folder, shown)
        if origin == OURS and not any(one.name == "searched" for one in found):
            parts.append(f"<p>{ASK_SEARCH}</p>")
    return "\n".join([*parts, *_ours(plan), *_again(plan), "</main>", "</body>", "</html>", ""])


def _verdict(one: Finding) -> str:
    return f'<span class="verdict {CLASSES[one.verdict]}">{escape(one.verdict)}</span>'


def _table(found: Sequence[Finding]) -> Iterator[str]:
    rows = []
    for one in found:
        link = f'<a href="#{one.name}">{escape(one.name.replace("-", " "))}</a>'
        whose = "the abstract" if one.origin == ABSTRACT else "ours"
        rows.append([link, whose, _verdict(one)])
    yield from _cells(("Claim", "Whose", "Verdict"), rows)


def _article(plan: Plan, one: Finding, folder: Path, shown: set[str]) -> Iterator[str]:
    yield f'<article id="{one.name}">'
    yield f"<h3>{escape(one.claim)}</h3>"
    yield _verdict(one)
    yield f"<p>{escape(one.found)}</p>"
    if one.table:
        head, *rows = one.table
        yield from _cells(head, [[escape(cell) for cell in row] for row in rows])
    yield f'<p class="soft">Criterion: {escape(one.criterion)}</p>'
    for name in one.figures:
        if name in shown:
            yield f'<p class="soft">See also <a href="#figure-{name}">{escape(PICTURES[name].alt)}</a>.</p>'
        elif name in PICTURES:
            shown.add(name)
            yield from _figure(plan, PICTURES[name])
        elif (folder / FOLDER / f"{SEARCH}.png").is_file():
            yield "<figure>"
            yield f'<img src="{FOLDER}/{SEARCH}.png" alt="Classes of the scanned settings">'
            yield "<figcaption>The scanned settings by number of maxima and persistence.</figcaption>"
            yield "</figure>"
    yield "</article>"


def _figure(plan: Plan, picture: Picture) -> Iterator[str]:
    path = f"{FOLDER}/{picture.name}"
    yield f'<figure id="figure-{picture.name}">'
    yield f'<a href="{path}.svg"><img src="{path}.png" alt="{escape(picture.alt)}" loading="lazy"></a>'
    yield f"<figcaption>{escape(picture.caption)}</figcaption>"
    yield "</figure>"
    lines = escape("\n".join(commands(plan, picture)), quote=False)
    yield f"<details><summary>Make this figure again</summary><pre><code>{lines}</code></pre></details>"


def _ours(plan: Plan) -> Iterator[str]:
    """Every constant, and every range."""
    recipes = {kind: load_recipe(kind) for kind in ("ei", "ii", "single")}
    yield '<h2 id="ours">What is ours</h2>'
    yield ("<p>The form of the model is the usual one; every number below is our choice or the textbook's, "
           "as in the recipes <code>ei</code>, <code>ii</code> and <code>single</code>. Runs of this page "
           "take step, durations and replicas from the second table instead.</p>")  # fmt: skip
    rows = []
    for name, leaf in leaves().items():
        table, _, key = name.partition(".")
        values = [_value(getattr(getattr(recipe, table), key)) for recipe in recipes.values()]
        rows.append([f"<code>{name}</code>", *map(escape, values), escape(leaf.field.metadata["help"])])
    yield "<details open><summary>Constants of the recipes</summary>"
    yield from _cells(("Setting", *recipes, "Meaning"), rows)
    yield "</details>"
    yield "<details open><summary>Ranges and durations of the sweeps</summary>"
    rows = [[one.name, one.recipe, escape(" by ".join(one.over)), escape(" ".join(one.given))]
            for one in plan.sweeps]  # fmt: skip
    yield from _cells(("Sweep", "Recipe", "Over", "On top"), rows)
    yield "</details>"


def _cells(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table that scrolls sideways where it is too wide; the cells are HTML."""
    yield '<div class="wide"><table>'
    yield "<tr>" + "".join(f"<th>{escape(one)}</th>" for one in head) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</table></div>"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _again(plan: Plan) -> Iterator[str]:
    points = sum(one.points for one in plan.sweeps)
    option = "" if plan.judged else " --quick"
    yield "<h2>Make it again</h2>"
    yield f"<pre><code>hhdelay reproduce{option} --out gallery</code></pre>"
    yield (f"<p>{len(plan.sweeps)} sweeps of {points} points, their data in <code>data/</code> as zarr. "
           "Numbers and verdicts: <a href='findings.json'>findings.json</a>. How long it took: "
           "<a href='took.json'>took.json</a>. Stopped, the same command goes on.</p>")  # fmt: skip
