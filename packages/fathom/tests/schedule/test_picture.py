"""Pictures show every item at its time, need nothing else, and can be read in light and dark."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fathom.config.errors import ConfigError
from fathom.schedule import SCHEDULES, Timeline, Times, build, place
from fathom.schedule.picture import LEFT, lay_out
from fathom.schedule.png import TIMES, draw_png
from fathom.schedule.svg import DARK, LIGHT, PAGE, draw_svg

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def timeline() -> Timeline:
    return place(build("dualpipe", 8, 20))


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_item_is_a_box_at_its_time(name: str) -> None:
    timeline = place(build(name, 4, 8), Times(1, 2, 0.9, 2.4))
    boxes = iter(lay_out(timeline).boxes)
    picture = lay_out(timeline)
    scale = (max(box.x + box.width for box in picture.boxes) - LEFT) / timeline.makespan
    for (y, _), row in zip(picture.tracks, timeline.rows, strict=True):
        for start, end, item in row:
            for half, op in enumerate(item):
                box = next(boxes)
                assert box.shade[0] == op.kind
                assert box.x == pytest.approx(LEFT + start * scale)
                assert box.width == pytest.approx((end - start) * scale)
                assert box.y == y + half * box.height
                assert not box.text or box.text.upper() == f"{op.kind}{op.micro}"
    assert next(boxes, None) is None


@pytest.mark.parametrize("size", [(2, 4), (8, 20), (16, 120)])
def test_nothing_is_off_the_page(size: tuple[int, int]) -> None:
    picture = lay_out(place(build("dualpipe", *size)))
    right = max([box.x + box.width for box in picture.boxes] + [x for x, _ in picture.ticks])
    assert right <= picture.width and len(picture.ticks) >= 4
    assert all(box.y + box.height <= picture.bottom for box in picture.boxes)
    assert all(y + 14 <= picture.height for _, y, _, _ in picture.legend)


def test_the_svg_asks_for_nothing_and_is_well_formed(timeline: Timeline) -> None:
    text = draw_svg(timeline)
    root = ET.fromstring(text)
    tags = {one.tag.removeprefix(SVG) for one in root.iter()}
    assert tags == {"svg", "style", "rect", "text", "title", "line"}
    assert not re.search(r"href|url\(|@import|<script", text)
    titles = [one.text or "" for one in root.iter(SVG + "title")]
    assert len(titles) == len(lay_out(timeline).boxes)
    assert "forward of micro-batch 7 in stage 0: 1,700 to 1,940, overlapped with B13" in titles
    assert text == draw_svg(timeline)


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_labels_can_be_read(colours: dict[str, tuple[str, str]]) -> None:
    def light(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    page = PAGE["light" if colours is LIGHT else "dark"]
    pairs = [*colours.values(), (page[0], page[1]), (page[0], page[2])]
    for fill, text in pairs:
        dark, bright = sorted((light(fill), light(text)))
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (fill, text)
    assert len({fill for fill, _ in colours.values()}) == 8


def test_the_png_is_the_same_picture(timeline: Timeline) -> None:
    images = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    import io

    picture = lay_out(timeline)
    image = images.open(io.BytesIO(draw_png(timeline)))
    assert image.size == (round(TIMES * picture.width), round(TIMES * picture.height))
    for box in picture.boxes:
        inside = image.getpixel((round(TIMES * (box.x + 4)), round(TIMES * (box.y + 4))))
        assert "#" + "".join(f"{part:02x}" for part in inside) == LIGHT[box.shade][0], box


def test_without_pillow_the_error_says_what_to_install(
    timeline: Timeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fathom.schedule.png.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="need Pillow. Fix: pip install pillow"):
        draw_png(timeline)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; `make system` installs it")
    with api.sync_playwright() as player:
        quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = player.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_labels_stay_in_their_boxes(
    browser: Any, scheme: str, timeline: Timeline, tmp_path: Path
) -> None:
    file = tmp_path / "plan.svg"
    file.write_text(draw_svg(timeline), encoding="utf-8")
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(file.as_uri())
    paper = page.evaluate("getComputedStyle(document.querySelector('.page')).fill")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 21, 28)"}[scheme]
    wide = page.evaluate("""[...document.querySelectorAll(".in")].filter((text) => {
        const box = text.previousElementSibling.getBoundingClientRect(), own = text.getBoundingClientRect();
        return own.left < box.left || own.right > box.right; }).map((text) => text.textContent)""")
    off = page.evaluate("""[...document.querySelectorAll("text")].filter((text) =>
        text.getBoundingClientRect().right > document.documentElement.getBoundingClientRect().right)
        .map((text) => text.textContent)""")
    assert (wide, off) == ([], [])
    context.close()
