"""Two timelines one above the other on one page: what the table says, and what was measured."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from fathom.config.errors import need
from fathom.schedule.picture import lay_out
from fathom.schedule.place import Timeline
from fathom.schedule.png import draw_png
from fathom.schedule.svg import draw_svg


def write(path: Path, table: Timeline, measured: Timeline) -> None:
    """An SVG or a PNG file, by its name's end. Times in ms."""
    need(path.suffix in (".svg", ".png"), f"{path.name} is no picture's name", fix="end it with .svg or .png")
    both = _named(table, "by the table"), _named(measured, "measured, ms")
    if path.suffix == ".svg":
        path.write_text(_svg(*both), "utf-8")
    else:
        path.write_bytes(_png(*both))


def _named(timeline: Timeline, what: str) -> Timeline:
    return replace(timeline, schedule=replace(timeline.schedule, name=f"{timeline.schedule.name}, {what}"))


def _svg(*timelines: Timeline) -> str:
    """Each is a page of its own inside a larger one."""
    pictures = [lay_out(timeline) for timeline in timelines]
    width, height = max(p.width for p in pictures), sum(p.height for p in pictures)
    inner, y = [], 0.0
    for timeline, picture in zip(timelines, pictures, strict=True):
        inner.append(draw_svg(timeline).replace("<svg ", f'<svg y="{y:g}" ', 1))
        y += picture.height
    box = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">\n{"".join(inner)}</svg>\n'


def _png(*timelines: Timeline) -> bytes:
    from PIL import Image

    images = [Image.open(io.BytesIO(draw_png(timeline))) for timeline in timelines]
    size = max(image.width for image in images), sum(image.height for image in images)
    page, y = Image.new("RGB", size, "#ffffff"), 0
    for image in images:
        page.paste(image, (0, y))
        y += image.height
    out = io.BytesIO()
    page.save(out, format="PNG", optimize=True)
    return out.getvalue()
