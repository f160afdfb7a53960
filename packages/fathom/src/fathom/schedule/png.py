"""A timeline as a PNG picture, light; needs Pillow."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import Any

from fathom.config.errors import need
from fathom.schedule.picture import LEFT, RIGHT, ROW, Picture, lay_out
from fathom.schedule.place import Timeline
from fathom.schedule.svg import LIGHT, PAGE, ROUND

TIMES = 2  # pixels of the file per pixel of the page, so that small letters stay sharp


def draw_png(timeline: Timeline) -> bytes:
    """The file's bytes: the same picture as the SVG.

    errors      ConfigError if Pillow is not installed
    """
    need(find_spec("PIL") is not None, "PNG pictures need Pillow", fix="pip install pillow, or write SVG")
    from PIL import Image, ImageDraw

    picture = lay_out(timeline)
    size = (round(TIMES * picture.width), round(TIMES * picture.height))
    image = Image.new("RGB", size, PAGE["light"][0])
    _paint(ImageDraw.Draw(image), picture)
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _paint(page: Any, picture: Picture) -> None:
    from PIL import ImageFont

    fonts = {size: ImageFont.load_default(size * TIMES) for size in (10, 12, 16)}
    paper, ink, dim, track = PAGE["light"]

    def text(x: float, y: float, words: str, fill: str, *, size: int = 12, anchor: str = "ls") -> None:
        page.text((TIMES * x, TIMES * y), words, fill=fill, font=fonts[size], anchor=anchor)

    def box(x: float, y: float, width: float, height: float, fill: str) -> None:
        corners = [TIMES * x, TIMES * y, TIMES * (x + width) - 1, TIMES * (y + height) - 1]
        if min(width, height) * TIMES >= 2 * ROUND:
            page.rounded_rectangle(corners, ROUND * TIMES, fill=fill, outline=paper)
        elif width * TIMES >= 1:
            page.rectangle(corners, fill=fill)

    text(LEFT, 28, picture.title, ink, size=16)
    text(LEFT, 48, picture.subtitle, dim)
    for y, name in picture.tracks:
        text(LEFT - 10, y + ROW / 2, name, dim, anchor="rm")
        box(LEFT, y, picture.width - LEFT - RIGHT, ROW, track)
    for one in picture.boxes:
        fill, letters = LIGHT[one.shade]
        box(one.x, one.y, one.width, one.height, fill)
        text(one.x + one.width / 2, one.y + one.height / 2, one.text, letters, size=10, anchor="mm")
    y = picture.bottom + 6
    page.line([TIMES * LEFT, TIMES * y, TIMES * (picture.width - RIGHT), TIMES * y], fill=dim, width=TIMES)
    for x, words in picture.ticks:
        page.line([TIMES * x, TIMES * y, TIMES * x, TIMES * (y + 5)], fill=dim, width=TIMES)
        text(x, y + 18, words, dim, anchor="ms")
    for x, y, kind, words in picture.legend:
        if kind:
            box(x, y, 14, 14, LIGHT[kind][0])
        text(x + 20 * bool(kind), y + 11, words, dim)
