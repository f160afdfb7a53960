"""The page in a browser: nobody is asked for anything, nothing fails, and it draws what was recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fathom.report.write import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [   # a browser in a container, that calls nobody of its own accord
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
EVIL = "</script><img src=x onerror=\"window.hit=1\"><b onclick='window.hit=1'>"
PHONE = {"width": 360, "height": 740}
WIDE = {"width": 1280, "height": 900}

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium here; `make system` installs it")
    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, tmp_path: Path) -> Iterator[Open]:
    """Write a page about runs and open it; afterwards nothing may have gone wrong or been asked for."""
    contexts: list[Any] = []
    faults: list[str] = []
    html = tmp_path / "page.html"

    def open_it(runs: list[Path], *, size: Any = WIDE, scheme: str = "light", script: bool = True) -> Any:
        write_report(runs, html)
        context = browser.new_context(viewport=size, color_scheme=scheme, java_script_enabled=script)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda request: faults.append(f"request: {request.url}"))
        page.goto(html.as_uri())
        return page

    yield open_it
    for context in contexts:
        context.close()
    asked = [fault for fault in faults if fault != f"request: {html.as_uri()}"]     # the page itself
    assert not asked, asked


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "train/loss" in line]


def paths(page: Any, chart: str) -> list[tuple[str, str, int]]:
    """(run, kind, points) of every curve in the chart with this title."""
    found: list[Any] = page.evaluate(
        """title => [...document.querySelectorAll(".chart")]
            .filter((f) => f.querySelector("b").textContent === title)
            .flatMap((f) => [...f.querySelectorAll("path.curve")])
            .map((p) => [p.dataset.run, p.dataset.kind, Number(p.dataset.points)])""",
        chart,
    )
    return [tuple(one) for one in found]


def tip(page: Any) -> str:
    shown: str = page.locator("#chart-0 .tip").inner_text()
    return shown


def hover(page: Any, share: float) -> str:
    """What the first chart says `share` of the way along its horizontal axis."""
    box = page.locator("#chart-0 svg").bounding_box()
    left, right = 48, box["width"] - 10     # of the drawing, as chart.js has them
    page.mouse.move(box["x"] + left + share * (right - left), box["y"] + box["height"] / 2)
    return tip(page)


def test_every_curve_is_drawn_with_all_its_points(make_run, open_page: Open) -> None:
    page = open_page([make_run(steps=300)])
    assert page.locator(".chart").count() == 8
    assert paths(page, "Training loss") == [("0", "raw", 300), ("0", "smooth", 299)]   # a step was skipped
    assert paths(page, "Held-out text") == [("0", "raw", 3)]
    assert paths(page, "Learning rate") == [("0", "raw", 300)]
    assert page.locator("#chart-0 .event").count() == 3
    kinds = page.evaluate("[...document.querySelectorAll('#chart-0 .event')].map((e) => e.dataset.kind)")
    assert kinds == ["spike", "resumed", "rollback"]


def test_hovering_shows_the_values_of_that_step(make_run, open_page: Open) -> None:
    run = make_run(steps=300)
    page, steps = open_page([run]), metrics(run)
    page.locator("#chart-0").scroll_into_view_if_needed()
    for step in (1, 120, 250, 300):
        shown = hover(page, (step - 1) / 299)
        assert f"step {step} " in shown and f"{steps[step - 1]['train/loss']:.3f}" in shown
    assert "spike. loss 9.4" in hover(page, 119 / 299)
    page.mouse.move(5, 5)
    assert page.locator("#chart-0 .tip").is_hidden()


def test_the_keyboard_moves_along_a_curve(make_run, open_page: Open) -> None:
    run = make_run(steps=300)
    page, steps = open_page([run]), metrics(run)
    page.locator("#chart-0 svg").focus()
    page.keyboard.press("Home")
    assert "step 1 " in tip(page) and f"{steps[0]['train/loss']:.3f}" in tip(page)
    page.keyboard.press("ArrowRight")
    assert "step 2 " in tip(page) and f"{steps[1]['train/loss']:.3f}" in tip(page)
    page.keyboard.press("Escape")
    assert page.locator("#chart-0 .tip").is_hidden()


def test_the_axis_can_be_steps_tokens_or_time(make_run, open_page: Open) -> None:
    """The third run takes twice as long for a step, so over time it ends last, over steps with the others."""
    runs = [make_run(name, steps=200) for name in ("a", "b", "c")]
    slow = [line | {"train/elapsed_s": 2 * line["train/elapsed_s"]} for line in metrics(runs[2])]
    (runs[2] / "metrics.jsonl").write_text("\n".join(map(json.dumps, slow)), encoding="utf-8")
    page = open_page(runs)
    ends = """() => [...document.querySelectorAll("#chart-0 path.curve:not(.faint)")]
        .map((p) => { const b = p.getBBox(); return Math.round(b.x + b.width); })"""
    steps = page.evaluate(ends)
    assert len(set(steps)) == 1
    page.check("input[value=tokens]")
    assert page.evaluate(ends) == steps
    assert "over tokens" in page.locator("#chart-0 title").first.text_content()
    page.check("input[value=seconds]")
    first, second, third = page.evaluate(ends)
    assert (first, third) == (second, steps[0]) and first < 0.6 * third
    labels = page.locator("#chart-0 svg > text").all_text_contents()
    assert any(label.endswith(" s") for label in labels)


def test_only_a_lone_spike_leaves_the_picture(make_run, open_page: Open) -> None:
    """A skipped step's loss of a million must not press the curve flat; a first measure of 40 is no spike."""
    run = make_run(steps=300)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    next(line for line in found if line["step"] == 120)["train/loss"] = 1e6
    next(line for line in found if "val/bpb" in line)["val/bpb"] = 40.0
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    page = open_page([run])
    extent = """title => { const figure = [...document.querySelectorAll(".chart")]
            .find((f) => f.querySelector("b").textContent === title);
        const b = figure.querySelector("path.curve:not(.faint)").getBBox();
        return [b.y, b.height, figure.querySelector("svg").viewBox.baseVal.height]; }"""
    for chart in ("Held-out text", "Training loss"):
        top, height, whole = page.evaluate(extent, chart)
        assert top >= 0 and top + height <= whole and height > 0.5 * whole, chart
    page.locator("#chart-0").scroll_into_view_if_needed()
    assert "1,000,000" in hover(page, 119 / 299)


def test_several_runs_are_compared(make_run, open_page: Open) -> None:
    runs = [make_run("a", lr=1e-3), make_run("b", lr=2e-3, seed=1), make_run("c", steps=200, seed=2)]
    page = open_page(runs)
    assert {(run, kind) for run, kind, _ in paths(page, "Training loss")} == {
        (place, kind) for place in "012" for kind in ("raw", "smooth")
    }  # fmt: skip
    assert page.locator("#legend button").all_inner_texts() == ["a", "b", "c"]
    page.click("#legend button:has-text('b')")
    assert {run for run, _, _ in paths(page, "Training loss")} == {"0", "2"}
    page.click("#legend button:has-text('b')")
    assert {run for run, _, _ in paths(page, "Training loss")} == {"0", "1", "2"}
    assert page.locator("#figures thead th").all_inner_texts() == ["figure", "a", "b", "c"]
    page.select_option("#heatmap select >> nth=0", label="c")
    assert "up to step 200" in (page.locator("#loads-canvas").get_attribute("aria-label") or "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_heat_map_shows_the_hottest_expert(make_run, open_page: Open, scheme: str) -> None:
    """Expert 6 of the second layer ends with three times its share: most of the colour for "above"."""
    run = make_run(steps=300, hot=(1, 5))
    page = open_page([run], scheme=scheme)
    page.select_option("#layer", "1")
    sides = page.evaluate("['width', 'height'].map((k) => document.getElementById('loads-canvas')[k])")
    assert sides == [30, 8]
    warmth = """() => { /* red less blue of the last column, read from a copy */
        const c = document.getElementById("loads-canvas"), copy = document.createElement("canvas");
        copy.width = 1; copy.height = c.height;
        const b = copy.getContext("2d"); b.drawImage(c, 1 - c.width, 0);
        const p = b.getImageData(0, 0, 1, c.height).data;
        return [...Array(c.height).keys()].map((row) => p[4 * row] - p[4 * row + 2]); }"""
    last = page.evaluate(warmth)
    assert last.index(max(last)) == 5 and max(last) > 3 * sorted(last)[-2]
    canvas = page.locator("#loads-canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] * 5.5 / 8)
    lines = (run / "loads.jsonl").read_text(encoding="utf-8").splitlines()
    counts = json.loads(lines[-1])["counts"][1]
    shown = page.locator("#heatmap .tip").inner_text()
    ratio = float(shown.split("\n")[-1].split()[0])
    assert "expert 6, steps 291 to 300" in shown
    assert ratio == pytest.approx(counts[5] * 8 / sum(counts), rel=0.012)
    page.click("#heatmap .layers button >> nth=0")
    calm = page.evaluate(warmth)
    assert max(map(abs, calm)) < max(last)


def test_the_theme_follows_the_system_until_it_is_chosen(make_run, open_page: Open) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    run = make_run(steps=60)
    light, dark = open_page([run]).evaluate(background), open_page([run], scheme="dark").evaluate(background)
    assert light == "rgb(246, 247, 249)" and dark == "rgb(17, 21, 28)"
    page = open_page([run])
    page.click("#theme")
    assert page.evaluate(background) == dark
    page.reload()
    assert page.evaluate(background) == dark, "the choice was forgotten"
    page.click("#theme")
    assert page.evaluate(background) == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(make_run, open_page: Open, scheme: str) -> None:
    """WCAG 2.1 level AA: a contrast of at least 4.5 for text."""
    page = open_page([make_run(steps=60)], scheme=scheme)
    contrasts = page.evaluate("""() => {
        const style = getComputedStyle(document.documentElement);
        const light = (name) => {
            const n = parseInt(style.getPropertyValue(name).trim().slice(1), 16);
            const [r, g, b] = [n >> 16, (n >> 8) & 255, n & 255].map((v) => v / 255)
                .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const found = {};
        const runs = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => `--c${i}`);
        for (const ink of ["--ink", "--dim", "--accent", "--warn", ...runs])
            for (const ground of ["--page", "--card"]) {
                const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
                found[`${ink} on ${ground}`] = (a + 0.05) / (b + 0.05); }
        return found; }""")
    weak = {pair: ratio for pair, ratio in contrasts.items() if ratio < 4.5}
    assert len(contrasts) == 24 and not weak, weak


def test_a_phone_needs_no_sideways_scrolling(make_run, open_page: Open) -> None:
    runs = [make_run("a-run-with-a-long-name-that-does-not-break-anywhere-at-all", experts=256), make_run()]
    for shown in ([runs[0]], runs):
        page = open_page(shown, size=PHONE)
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        wide = page.evaluate("""(most) => [...document.querySelectorAll("body *")]
            .filter((e) => e.getBoundingClientRect().right > most && !e.closest(".scroll, .skip"))
            .map((e) => `${e.tagName} ${e.className} ${e.id}`)""", PHONE["width"])  # fmt: skip
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], wide


def test_settings_are_found_by_a_word(make_run, open_page: Open) -> None:
    page = open_page([make_run(steps=60)])
    page.fill(".find", "beta2")
    rows = page.locator(".settings tbody tr:visible")
    assert rows.count() == 1 and "0.95" in rows.first.inner_text()
    page.fill(".find", "")
    assert page.locator(".settings tbody tr:visible").count() > 5


def test_what_a_run_says_does_nothing(make_run, open_page: Open) -> None:
    run = make_run(EVIL.replace("/", "∕"), steps=60)
    other = make_run("other", steps=60)
    line = json.dumps({"step": 30, "kind": EVIL, "detail": EVIL, "prompt": EVIL, "text": EVIL}) + "\n"
    for name in ("events.jsonl", "samples.jsonl"):
        (run / name).write_text(line, encoding="utf-8")
    page = open_page([run, other])
    hover(page, 29 / 59)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("window.hit === undefined && document.images.length === 0")
    assert "<img src=x" in page.locator("#legend").inner_text()
    assert "<img src=x" in tip(page)


def test_the_smallest_runs_draw_without_an_error(tmp_path: Path, open_page: Open) -> None:
    for name, text in {
        "one": '{"step": 1, "train/loss": 2.5}\n',
        "nothing": '{"step": 7}\n',
        "null": '{"step": 1, "train/loss": null}\n{"step": 2, "train/loss": 1.5, "train/grad_norm": 0}\n',
        "same": '{"step": 1, "train/loss": 0, "train/lr": 0}\n{"step": 2, "train/loss": 0, "train/lr": 0}\n',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(text, encoding="utf-8")
        page = open_page([tmp_path / name])
        page.evaluate("document.querySelectorAll('input[type=checkbox]').forEach((box) => box.click())")
        if page.locator("#chart-0").count():
            hover(page, 0.5)
        assert "NaN" not in page.content()


def test_without_a_script_the_figures_are_there(make_run, open_page: Open) -> None:
    page = open_page([make_run(steps=60), make_run("b", steps=60)], script=False)
    assert page.locator("#figures tbody tr").count() == 11
    assert page.locator("noscript, main > p.note").first.is_visible()
