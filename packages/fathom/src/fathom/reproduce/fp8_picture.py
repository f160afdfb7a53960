"""Two panels over the tokens read: the losses of both precisions, and how far they are apart.

An SVG file that needs nothing else; light or dark as the reader's system is.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import NamedTuple

from fathom.schedule.svg import FONT, PAGE

WIDTH, LEFT, RIGHT = 960, 74, 34  # CSS pixels, as all lengths here
TOP, PANEL, GAP, AXIS = 116, 240, 76, 52  # above the first panel, a panel, between the two, below the last
HEIGHT = TOP + 2 * PANEL + GAP + AXIS
TITLE = "FP8 training against bf16 on the same data"
SOURCE = "report, section 3.3"
BELOW = "tokens read; shaded: the last half of the steps, over which the figures are taken"
SMALLEST = 1e-3  # percent; smaller errors, as of the first steps, are drawn there
POWERS = range(-4, 7)  # of ten, that an axis may span
# what is marked of each decade, by how many decades an axis spans at most
MARKS = ((1.0, (1, 2, 3, 4, 5, 6, 7, 8, 9)), (4.0, (1, 2, 5)), (math.inf, (1,)))
X_MARKS = 6  # about as many on the axis of tokens
# line of each kind in light and in dark; how it is drawn; what the legend calls it. Painted in this order
KINDS = {
    "noise": ("#8a94a3", "#768294", "stroke-width:1.6", "bf16, summed in another order (noise floor)"),
    "control": ("#c02660", "#ff86ae", "stroke-width:1.6;stroke-dasharray:5 3",
                "FP8, gradients of activations in 128 x 128 blocks (control)"),
    "bf16": ("#1f5fd1", "#7db0ff", "stroke-width:6;stroke-opacity:.35", "bf16"),
    "fp8": ("#b34e06", "#ffa45c", "stroke-width:1.6", "FP8"),
}  # fmt: skip


class Curve(NamedTuple):
    """One run; a value that is not finite is a gap."""

    kind: str  # of KINDS
    name: str
    tokens: Sequence[int]
    values: Sequence[float]


class Scale(NamedTuple):
    """Pixels of a value on a logarithmic axis from its first mark, at `bottom`, to its last."""

    marks: Sequence[float]
    bottom: float

    def __call__(self, value: float) -> float:
        low, high = self.marks[0], self.marks[-1]
        share = math.log(max(value, low) / low) / math.log(high / low)
        return self.bottom - PANEL * min(share, 1.0)


def draw_picture(
    losses: Sequence[Curve], errors: Sequence[Curve], limit_percent: float, subtitle: str
) -> str:
    """The file's text.

    losses   nats per token, smoothed
    errors   percent of the reference
    """
    most = max(curve.tokens[-1] for curve in losses)

    def x(tokens: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * tokens / most

    loss = _scale(losses, TOP + PANEL, at_least=())
    error = _scale(errors, TOP + 2 * PANEL + GAP, at_least=(limit_percent,))
    limit_y = error(limit_percent)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{escape(TITLE)}; {escape(subtitle)}">',
        f"<style>{_style()}</style>",
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
        f'<text class="title" x="{LEFT}" y="30">{escape(TITLE)}</text>',
        f'<text class="dim" x="{LEFT}" y="50">{escape(subtitle)}</text>',
        *_panel(loss, "loss, nats per token", x, most),
        *_legend(_among(losses, "bf16", "fp8"), TOP - 12),
        *_panel(error, "relative error of the loss, percent", x, most),
        *_legend(_among(errors, "fp8", "noise", "control"), loss.bottom + GAP - 12),
        f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{limit_y:.6g}" y2="{limit_y:.6g}"/>',
        *_curves(losses, x, loss),
        *_curves(errors, x, error),
        f'<text class="dim over" x="{LEFT + 8}" y="{limit_y - 6:.6g}">{limit_percent:g} % ({SOURCE})</text>',
        *_axis(x, most, error.bottom),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _style() -> str:
    def colours(scheme: str, place: int) -> str:
        page, ink, dim, track = PAGE[scheme]
        rules = f".page{{fill:{page}}}text{{fill:{ink}}}.dim{{fill:{dim}}}.late{{fill:{track};opacity:.55}}"
        rules += f".grid{{stroke:{track}}}.mark{{stroke:{dim}}}.limit{{stroke:{ink}}}.over{{stroke:{page}}}"
        return rules + "".join(f".{kind}{{stroke:{looks[place]}}}" for kind, looks in KINDS.items())

    drawn = "".join(f".{kind}{{{looks[2]}}}" for kind, looks in KINDS.items())
    return (
        f"text{{font:12px {FONT};font-variant-numeric:tabular-nums}}.title{{font-size:16px;font-weight:600}}"
        ".left{text-anchor:end}.at{text-anchor:middle}.head{font-weight:600}"
        ".over{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}"
        "path{fill:none;stroke-linejoin:round}.limit{stroke-dasharray:2 4;stroke-width:1.4}"
        f"{drawn}{colours('light', 0)}@media(prefers-color-scheme:dark){{{colours('dark', 1)}}}"
    )


def _scale(curves: Sequence[Curve], bottom: float, *, at_least: Sequence[float]) -> Scale:
    """Whole marks around every value; errors below SMALLEST do not count."""
    known = [v for c in curves for v in c.values if math.isfinite(v) and v >= SMALLEST] + [*at_least]
    low, high = (min(known), max(known)) if known else (SMALLEST, 1.0)
    of_decade = next(marks for most, marks in MARKS if math.log10(high / low) <= most)
    every = [mark * 10.0**power for power in POWERS for mark in of_decade]
    first = max(bisect_right(every, low) - 1, 0)
    return Scale(every[first : bisect_right(every, high) + 1], bottom)


def _panel(y: Scale, name: str, x: Callable[[float], float], most: float) -> Iterator[str]:
    """Its name, the half that is measured, and the lines of its axis."""
    top, middle = y.bottom - PANEL, x(most / 2)
    width = WIDTH - RIGHT - middle
    yield f'<rect class="late" x="{middle:.6g}" y="{top:g}" width="{width:.6g}" height="{PANEL}"/>'
    yield f'<text class="head" x="{LEFT}" y="{top - 32:g}">{escape(name)}</text>'
    for value in y.marks:
        at = y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.6g}" y2="{at:.6g}"/>'
        yield f'<text class="dim left" x="{LEFT - 10}" y="{at + 4:.6g}">{value:.6g}</text>'


def _among(curves: Sequence[Curve], *kinds: str) -> list[str]:
    return [kind for kind in kinds if any(curve.kind == kind for curve in curves)]


def _legend(kinds: Sequence[str], y: float) -> Iterator[str]:
    place = float(LEFT)
    for kind in kinds:
        words = KINDS[kind][3]
        yield f'<line class="{kind}" x1="{place:g}" x2="{place + 24:g}" y1="{y - 4:g}" y2="{y - 4:g}"/>'
        yield f'<text class="dim" x="{place + 32:g}" y="{y:g}">{escape(words)}</text>'
        place += 60 + 6.3 * len(words)


def _curves(curves: Sequence[Curve], x: Callable[[float], float], y: Scale) -> Iterator[str]:
    for kind in KINDS:
        for curve in curves:
            if curve.kind == kind:
                drawn, name = _path(curve, x, y), escape(curve.name)
                yield f'<path class="{kind}" d="{drawn}"><title>{name}</title></path>'


def _path(curve: Curve, x: Callable[[float], float], y: Scale) -> str:
    parts, pen = [], "M"
    for tokens, value in zip(curve.tokens, curve.values, strict=False):
        if math.isfinite(value):
            parts.append(f"{pen}{x(tokens):.1f} {y(value):.1f}")
        pen = "L" if math.isfinite(value) else "M"
    return "".join(parts)


def _axis(x: Callable[[float], float], most: int, y: float) -> Iterator[str]:
    unit, name = (1_000_000, "M") if most >= 1_000_000 else (1_000, "K")
    power = 10.0 ** math.floor(math.log10(most / X_MARKS))
    step = min((m * power for m in (1.0, 2.0, 5.0, 10.0)), key=lambda s: abs(most / s - X_MARKS))
    for i in range(int(most / step) + 1):
        at = x(i * step)
        yield f'<line class="mark" x1="{at:.6g}" x2="{at:.6g}" y1="{y:g}" y2="{y + 5:g}"/>'
        label = f"{i * step / unit:g}{name if i else ''}"
        yield f'<text class="dim at" x="{at:.6g}" y="{y + 19:g}">{label}</text>'
    yield f'<text class="dim at" x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{y + 38:g}">{BELOW}</text>'
