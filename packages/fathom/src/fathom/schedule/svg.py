"""A timeline as an SVG file that needs nothing else; light or dark as the reader's system is."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from fathom.schedule.picture import LEFT, RIGHT, ROW, Picture, lay_out
from fathom.schedule.place import Timeline

# fill and text of each kind, towards the last rank and (u) towards rank 0
LIGHT = {
    "F": ("#2f6fd6", "#ffffff"), "B": ("#18754a", "#ffffff"), "I": ("#0a7584", "#ffffff"),
    "W": ("#995c06", "#ffffff"), "Fu": ("#a9c8f7", "#12305f"), "Bu": ("#a5dcc0", "#0d4029"),
    "Iu": ("#a3dde4", "#07424b"), "Wu": ("#f3cf94", "#553403"),
}  # fmt: skip
DARK = {
    "F": ("#74a9ff", "#0b1a33"), "B": ("#5cc795", "#06281a"), "I": ("#55c7d6", "#04282d"),
    "W": ("#eaa94a", "#2f1d02"), "Fu": ("#274a80", "#d6e5ff"), "Bu": ("#1f5a41", "#d2f5e3"),
    "Iu": ("#175862", "#cff4f9"), "Wu": ("#70480e", "#fde8c8"),
}  # fmt: skip
PAGE = {  # paper, ink, dim ink, idle time
    "light": ("#ffffff", "#1b2330", "#5b6675", "#eef1f5"),
    "dark": ("#11151c", "#e6eaf1", "#98a4b5", "#1d2430"),
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
ROUND = 3  # corners


def draw_svg(timeline: Timeline) -> str:
    """The file's text. Halves of a pair lie one above the other; a pointer over an item says what it is."""
    picture = lay_out(timeline)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {picture.width:g} {picture.height:g}" '
        f'width="{picture.width:g}" height="{picture.height:g}" role="img" '
        f'aria-label="{escape(picture.title)}; {escape(picture.subtitle)}">',
        f"<style>{_style()}</style>",
        f'<rect class="page" width="{picture.width:g}" height="{picture.height:g}" rx="8"/>',
        f'<text class="title" x="{LEFT}" y="28">{escape(picture.title)}</text>',
        f'<text class="dim" x="{LEFT}" y="48">{escape(picture.subtitle)}</text>',
        *_ranks(picture),
        *_items(picture),
        *_axis(picture),
        *_legend(picture),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _style() -> str:
    def colours(scheme: str, kinds: dict[str, tuple[str, str]]) -> str:
        page, ink, dim, track = PAGE[scheme]
        rules = f".page{{fill:{page}}}text{{fill:{ink}}}.dim{{fill:{dim}}}.track{{fill:{track}}}"
        rules += f"line{{stroke:{dim}}}.item{{stroke:{page}}}"
        for kind, (fill, text) in kinds.items():
            rules += f".{kind}{{fill:{fill}}}.{kind}t{{fill:{text}}}"
        return rules

    return (
        f"text{{font:12px {FONT};font-variant-numeric:tabular-nums}}.title{{font-size:16px;font-weight:600}}"
        ".item{stroke-width:1}.in{font-size:10px;text-anchor:middle;pointer-events:none}.at{text-anchor:middle}"
        f".rank{{text-anchor:end}}{colours('light', LIGHT)}"
        f"@media(prefers-color-scheme:dark){{{colours('dark', DARK)}}}"
    )


def _ranks(picture: Picture) -> Iterator[str]:
    for y, name in picture.tracks:
        wide = picture.width - LEFT - RIGHT
        yield f'<text class="dim rank" x="{LEFT - 10}" y="{y + ROW / 2 + 4:g}">{name}</text>'
        yield f'<rect class="track" x="{LEFT}" y="{y:g}" width="{wide:.6g}" height="{ROW}" rx="{ROUND}"/>'


def _items(picture: Picture) -> Iterator[str]:
    for box in picture.boxes:
        yield (
            f'<rect class="item {box.shade}" x="{box.x:.6g}" y="{box.y:g}" width="{box.width:.6g}" '
            f'height="{box.height:g}" rx="{ROUND}"><title>{escape(box.meaning)}</title></rect>'
        )
        if box.text:
            x, y = box.x + box.width / 2, box.y + box.height / 2 + 3.5
            yield f'<text class="in {box.shade}t" x="{x:.6g}" y="{y:g}">{box.text}</text>'


def _axis(picture: Picture) -> Iterator[str]:
    y = picture.bottom + 6
    yield f'<line x1="{LEFT}" x2="{picture.width - RIGHT:.6g}" y1="{y:g}" y2="{y:g}"/>'
    for x, text in picture.ticks:
        yield f'<line x1="{x:.6g}" x2="{x:.6g}" y1="{y:g}" y2="{y + 5:g}"/>'
        yield f'<text class="dim at" x="{x:.6g}" y="{y + 18:g}">{text}</text>'


def _legend(picture: Picture) -> Iterator[str]:
    for x, y, kind, words in picture.legend:
        if kind:
            yield f'<rect class="item {kind}" x="{x:g}" y="{y:g}" width="14" height="14" rx="{ROUND}"/>'
        if words:
            yield f'<text class="dim" x="{x + 20 * bool(kind):g}" y="{y + 11:g}">{words}</text>'
