"""The page as text: its figures are the run's, whatever a file says is only text, and it stays small."""

from __future__ import annotations

import json
import math
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fathom.config.dump import to_toml
from fathom.config.errors import ConfigError, DataError
from fathom.config.load import load_recipe
from fathom.report import units
from fathom.report.build import build_report, filled
from fathom.report.final import final_figures
from fathom.report.markup import script_json, text
from fathom.report.run import read_runs, short_names

EVIL = "</script><img src=x onerror=alert(1)><!-- ]]> & \" ' \u2028 \ud800 \x00"
LARGEST = 3_000_000  # bytes of a page


class Page(HTMLParser):
    """Tags with their attributes, text by tag, and the JSON block."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open, data))

    @property
    def data(self) -> dict[str, Any]:
        """The block that the script reads."""
        blocks = [d for tag, d in self.texts if tag == "script" and d.startswith('{"charts"')]
        assert len(blocks) == 1
        found: dict[str, Any] = json.loads(blocks[0])
        return found

    @property
    def words(self) -> str:
        """All text that is shown."""
        return " ".join(d for tag, d in self.texts if tag not in ("script", "style"))


def steps_of(run: Path) -> list[dict[str, Any]]:
    """One merged object a step, read by hand."""
    found: dict[int, dict[str, Any]] = {}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        found.setdefault(values["step"], {}).update(values)
    return list(found.values())


def test_the_final_figures_are_those_of_the_files(make_run) -> None:
    run = make_run(steps=300, spikes=(120, 298))
    steps = steps_of(run)
    taken = [s for s in steps[-6:] if s["step"] != 298]     # a fiftieth of 300; the spike was skipped
    final = final_figures(read_runs([run])[0])
    assert final.width == 6
    assert final.loss == pytest.approx(sum(s["train/loss"] for s in taken) / 5, rel=1e-12)
    assert final.mtp == pytest.approx(sum(s["mtp/loss"] for s in taken) / 5, rel=1e-12)
    assert final.violation == pytest.approx(sum(s["moe/max_violation"] for s in taken) / 5, rel=1e-12)
    assert final.bits_per_byte == steps[-1]["val/bpb"]
    assert (final.steps, final.tokens, final.seconds) == (300, 150_000, 75.0)
    assert final.rate == pytest.approx(2000.0)
    assert final.mfu == pytest.approx(sum(s["perf/mfu"] for s in steps) / 300, rel=1e-9)    # equal steps
    assert (final.spikes, final.rollbacks, final.state) == (2, 1, "finished")
    words = Page(build_report([run])).words
    for shown in (f"{final.loss:.3f}", f"{final.bits_per_byte:.3f}", "150K", "1 min 15 s", "2,000",
                  f"{100 * final.mfu:.1f}%", f"{final.violation:.2f}", "2 spikes, 1 rollback"):
        assert shown in words, shown


def test_the_curves_hold_every_point_of_a_short_run(make_run) -> None:
    run = make_run(steps=300)
    page, steps = Page(build_report([run])), steps_of(run)
    drawn = page.data["runs"][0]
    loss = drawn["curves"]["train/loss"]["raw"]
    at = loss["at"] or list(range(len(loss["y"])))
    assert [drawn["rows"]["step"][i] for i in at] == [s["step"] for s in steps]
    assert loss["y"] == pytest.approx([s["train/loss"] for s in steps], rel=1e-5)
    bpb = drawn["curves"]["val/bpb"]["raw"]
    assert [drawn["rows"]["step"][i] for i in bpb["at"]] == [100, 200, 300]
    assert [drawn["rows"]["tokens"][i] for i in bpb["at"]] == [50_000, 100_000, 150_000]
    smooth = drawn["curves"]["train/loss"]["smooth"]
    places = smooth["at"] or list(range(len(smooth["y"])))
    for row, y in zip(places, smooth["y"], strict=True):
        step = drawn["rows"]["step"][row]
        reach = min(3, step - 1)
        around = [s["train/loss"] for s in steps[step - 1 - reach : step + reach] if s["step"] != 120]
        assert y == pytest.approx(sum(around) / len(around), rel=1e-5)


@pytest.mark.parametrize("kept", [(), ("loads.jsonl",), ("about.json",), ("samples.jsonl", "events.jsonl")])
def test_every_file_but_the_metrics_may_be_missing(make_run, kept: tuple[str, ...]) -> None:
    run = make_run(steps=30, eval_every=10)
    for file in run.iterdir():
        if file.name not in ("metrics.jsonl", *kept):
            file.unlink()
    html = build_report([run])
    assert ('id="heatmap"' in html) == ("loads.jsonl" in kept)
    assert ('id="settings"' in html) == ("about.json" in kept)
    assert ('id="samples"' in html) == ("samples.jsonl" in kept)
    assert "training loss" in Page(html).words


def test_a_run_of_one_step_without_a_figure(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "train/lo', encoding="utf-8")
    page = Page(build_report([tmp_path]))
    assert page.data["charts"] == []
    assert "in 1 steps" not in page.words
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.5}', encoding="utf-8")
    assert "2.500" in Page(build_report([tmp_path])).words


@pytest.mark.parametrize(
    "about",
    ["[]", "{", '{"machine": 3, "recipe": [1], "origin": {"train.lr": 7}, "title": {}}',
     '{"parameters": {"total": "many"}, "recipe": {"train": {"steps": null}}}',
     '{"recipe": ' + '{"a":' * 500 + "1" + "}" * 501],
)  # fmt: skip
def test_a_strange_about_is_no_reason_to_fail(make_run, about: str) -> None:
    run = make_run(steps=30)
    (run / "about.json").write_text(about, encoding="utf-8")
    assert "training loss" in Page(build_report([run])).words


def test_a_recipe_file_stands_in_for_the_record(make_run) -> None:
    run = make_run(steps=30)
    (run / "about.json").unlink()
    (run / "recipe.toml").write_text(to_toml(load_recipe("tiny", ["train.lr=7e-3"]).recipe), encoding="utf-8")
    page = Page(build_report([run]))
    assert "0.007" in page.words and "not recorded" in page.words
    (run / "recipe.toml").write_text("[model", encoding="utf-8")
    assert "0.007" not in Page(build_report([run])).words


def test_how_the_run_ended(make_run) -> None:
    run = make_run(steps=30)
    assert "no spikes, no rollbacks · finished" in Page(build_report([make_run(
        "calm", steps=30, spikes=(), rollback=None)])).words    # fmt: skip
    for step, kind in ((30, "diverged"), (30, "stopped")):
        event = {"step": step, "kind": kind, "detail": ""}
        (run / "events.jsonl").write_text(json.dumps(event) + "\n", encoding="utf-8")
        assert final_figures(read_runs([run])[0]).state == kind
    recipe = tomllib.loads(to_toml(load_recipe("tiny", ["train.steps=60"]).recipe))
    (run / "about.json").write_text(json.dumps({"recipe": recipe}), encoding="utf-8")
    (run / "events.jsonl").unlink()
    assert "at 50% of its budget" in Page(build_report([run])).words


def test_whatever_a_run_says_is_only_text(make_run, tmp_path: Path) -> None:
    run = make_run("ev</script><img src=x onerror=alert(1)>il".replace("/", "∕"), steps=30)
    about = json.loads((run / "about.json").read_text(encoding="utf-8"))
    about["title"], about["started"], about["machine"]["cpu"] = EVIL, EVIL, EVIL
    recipe = about["recipe"]
    recipe["model"]["name"], about["origin"]["train.lr"], recipe["train"][EVIL] = EVIL, EVIL, EVIL
    (run / "about.json").write_text(json.dumps(about), encoding="utf-8")
    line = json.dumps({"step": 30, "kind": EVIL, "detail": EVIL, "prompt": EVIL, "text": EVIL}) + "\n"
    for name in ("events.jsonl", "samples.jsonl"):
        (run / name).write_text(line, encoding="utf-8")
    for folders in ([run], [run, make_run("other")]):
        html = build_report(folders)
        html.encode("utf-8")
        page = Page(html)
        assert not [tag for tag, _ in page.tags if tag == "img"]
        assert sum(tag == "script" for tag, _ in page.tags) == 3
        handlers = [name for _, given in page.tags for name in given if name.startswith("on")]
        assert not handlers
        assert any(EVIL[:30] in event["detail"] for event in page.data["runs"][0]["events"])


@pytest.mark.parametrize("value", ["</script>", "<!--", "\u2028\u2029", "\ud800", "a&b", '"'])
def test_json_in_a_script_comes_back_and_cannot_end_it(value: str) -> None:
    written = script_json({"name": value})
    assert json.loads(written) == {"name": value}
    assert not re.search(r"[<>&\u2028\u2029]", written)


def test_text_has_no_markup_left() -> None:
    assert text('<b a="1">&\x00\ud800') == "&lt;b a=&quot;1&quot;&gt;&amp;\ufffd?"


def test_a_template_is_filled_in_one_pass() -> None:
    assert filled("a<!--x-->b<!--y-->c", {"x": "<!--y-->", "y": "Y"}) == "a<!--y-->bYc"


def test_the_page_asks_nobody_for_anything(make_run) -> None:
    html = build_report([make_run(steps=30)])
    asked = [value for _, given in Page(html).tags for name, value in given.items()
             if name in ("src", "href", "action", "srcset", "data", "poster")]  # fmt: skip
    assert asked == ["#main"]
    style = "".join(d for tag, d in Page(html).texts if tag == "style")
    assert "@import" not in style and "url(" not in style
    outside = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert outside == {"http://www.w3.org/2000/svg"}    # the name of a language, which nobody fetches
    policy = next(given["content"] for tag, given in Page(html).tags if "http-equiv" in given)
    assert policy and policy.startswith("default-src 'none'; script-src 'sha256-")


def test_the_page_is_the_same_for_the_same_files(make_run) -> None:
    run = make_run(steps=30)
    assert build_report([run]) == build_report([run])


def test_only_settings_that_differ_are_compared(make_run) -> None:
    runs = [make_run("a", lr=1e-3), make_run("b", lr=2e-3, overrides=("train.optim.beta2=0.99",))]
    html = build_report(runs)
    part = html[html.index('id="differences"') : html.index('id="runs"')]
    named = re.findall(r"<code>((?:model|data|train)\.[\w.]+)</code>", part)
    assert named == ["train.lr", "train.optim.beta2"]
    assert all(word in part for word in ("0.001", "0.002", "0.95", "0.99", "default", "command line"))
    same = build_report([make_run("c"), make_run("d")])
    assert "The runs have the same settings." in same


def test_settings_say_where_they_came_from(make_run) -> None:
    html = build_report([make_run(steps=30, lr=4e-3)])
    part = html[html.index('id="settings"') : html.index('id="machine"')]
    opened, *folded = part.split("<details")
    assert "0.004" in opened and "command line" in opened and "recipe tiny" in opened
    assert [re.findall(r"<summary>\d+ settings ([a-z ]+)<", fold) for fold in folded] == [
        ["from preset tiny"], ["as by default"],
    ]  # fmt: skip
    loaded = load_recipe("tiny", ["train.steps=30", "train.lr=4e-3"])
    assert part.count("<tr>") == len(loaded.origin)


@pytest.mark.parametrize(
    "written, read",
    [("2026-11-22T12:12:57+00:00", "2026-11-22 12:12 UTC"), ("2026-11-22T12:12:57", "2026-11-22 12:12"),
     ("yesterday", "yesterday"), (None, None), (5, None)],
)  # fmt: skip
def test_moments_are_read_to_the_minute(written: object, read: str | None) -> None:
    assert units.moment(written) == read


@pytest.mark.parametrize(
    "value, read",
    [(0, "0"), (9_999, "9,999"), (10_000, "10.0K"), (999_999, "1.00M"), (154_400, "154K"), (14.8e12, "14.8T"),
     (1e18, "1,000,000T"), (math.nan, units.UNKNOWN)],
)  # fmt: skip
def test_counts_are_short(value: float, read: str) -> None:
    assert units.count(value) == read


@pytest.mark.parametrize(
    "seconds, read", [(0.0, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (3599.6, "1 h 0 min"),
                      (7260, "2 h 1 min"), (90_000, "1 d 1 h"), (math.nan, units.UNKNOWN)],
)  # fmt: skip
def test_durations_have_two_units(seconds: float, read: str) -> None:
    assert units.duration(seconds) == read


def test_names_are_as_long_as_they_must_be() -> None:
    names = short_names([Path("/a/x/run"), Path("/a/y/run"), Path("/b/y/run"), Path("/b/other")])
    assert names == ["x/run", "a/y/run", "b/y/run", "other"]


def test_many_steps_make_a_small_page(tmp_path: Path) -> None:
    with (tmp_path / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, 250_001):
            loss = 1000.0 if step == 77_777 else 2.0 + (step * 7919 % 1000) / 1000
            file.write(f'{{"step": {step}, "train/loss": {loss}}}\n')
    html = build_report([tmp_path])
    assert len(html) < 300_000
    curve = Page(html).data["runs"][0]["curves"]["train/loss"]["raw"]
    assert len(curve["y"]) <= 1500 and max(curve["y"]) == 1000.0


def test_the_loads_of_the_largest_network_stay_small(make_run) -> None:
    """61 layers of which 58 have experts, one of MTP, 256 experts, 80 records; thrice on one page."""
    runs = [make_run("big", steps=800, layers=59, experts=256)]
    assert len(build_report(runs).encode()) < LARGEST
    for name in ("b", "c"):
        (runs[0].parent / name).mkdir()
        for file in runs[0].iterdir():
            (runs[0].parent / name / file.name).hardlink_to(file)
        runs.append(runs[0].parent / name)
    html = build_report(runs)
    assert len(html.encode()) < LARGEST
    assert [run["loads"]["experts"] for run in Page(html).data["runs"]] == [256] * 3


@pytest.mark.parametrize("folders", [["nil"], ["run/metrics.jsonl"], ["."], ["run", "run"], ["run", "./run"]])
def test_what_is_no_run_is_said_in_one_line(make_run, monkeypatch, folders: list[str]) -> None:
    monkeypatch.chdir(make_run().parent)
    with pytest.raises(ConfigError, match=r"^[^\n]+\. Fix: [^\n]+$") as error:
        build_report([Path(folder) for folder in folders])
    assert "run" in str(error.value).partition("Fix: ")[2]


def test_a_run_without_a_step_has_nothing_to_show(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds no step yet\. Fix: "):
        build_report([tmp_path])
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(DataError, match=r"^cannot read .* Fix: "):
        build_report([tmp_path])


def test_the_time_mean_weighs_by_time(tmp_path: Path) -> None:
    lines = [(1, 10.0, 0.2), (2, 40.0, 0.4)]
    text = "".join(f'{{"step": {s}, "train/elapsed_s": {t}, "perf/mfu": {m}}}\n' for s, t, m in lines)
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert math.isclose(final_figures(read_runs([tmp_path])[0]).mfu, (10 * 0.2 + 30 * 0.4) / 40)
