"""The folder that `reproduce` fills: figures, page, numbers; stopped, refused, made again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hhdelay.cli.main import main
from hhdelay.config.errors import ConfigError
from hhdelay.reproduce import Gallery, full, quick, report, reproduce
from hhdelay.reproduce import run as module
from hhdelay.reproduce.page import page
from hhdelay.reproduce.pictures import PICTURES, commands
from hhdelay.reproduce.plan import Plan
from hhdelay.store.tiles import open_store

Made = tuple[Path, Gallery]
Bar = Callable[[str], Any]


def written(out: Path) -> dict[str, bytes]:
    """All but took.json."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*"))
            if p.is_file() and p.name != "took.json"}  # fmt: skip


def test_every_figure_is_there(gallery: Made) -> None:
    out, _ = gallery
    for name in PICTURES:
        assert (out / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
        assert (out / f"figures/{name}.svg").read_bytes().startswith(b"<?xml")
    known = {f"{name}.{suffix}" for name in PICTURES for suffix in ("png", "svg")}
    assert {path.name for path in (out / "figures").iterdir()} == known


def test_the_page_tells_every_claim(gallery: Made, tiny: Plan) -> None:
    out, made = gallery
    text = (out / "index.html").read_text("utf-8")
    assert len(made.findings) == 11 and "too short and too coarse to judge by" in text
    for one in made.findings:
        assert f'<article id="{one.name}">' in text and one.verdict == "too short to judge"
    for name, picture in PICTURES.items():
        image = re.search(rf'<img src="figures/{name}.png" alt="([^"]+)"', text)
        assert image and image[1] == picture.alt
        for line in commands(tiny, picture):
            assert line in text
    links = re.findall(r'(?:href|src)=["\']([^"\']+)["\']', text)
    outside = [one for one in links if "//" in one]
    assert all(re.match(r"https://(arxiv\.org|doi\.org)/", one) for one in outside)
    ids = re.findall(r'id=["\']([^"\']+)["\']', text)
    assert len({*ids}) == len(ids)
    for one in {*links} - {*outside}:
        assert one[1:] in ids if one.startswith("#") else (out / one).is_file(), one
    assert "<script" not in text and "prefers-color-scheme" in text


def test_the_page_names_what_is_ours(gallery: Made) -> None:
    text = (gallery[0] / "index.html").read_text("utf-8")
    for words in ("synapse.inh_decay_per_ms", "motif.g_mS_cm2", "noise.D_uA2_ms_cm4", "no figure of",
                  "motif.delay_ms=4:22:3", "hhdelay search --out search"):  # fmt: skip
        assert words in text


def test_again_runs_no_tile_and_changes_no_byte(
    gallery: Made, tiny: Plan, silent: Bar, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, first = gallery
    before = written(out)
    monkeypatch.setattr(module, "draw_all", lambda *_: None)    # equal bytes of figures: tests/plot
    again = reproduce(out, tiny, silent, workers=1)
    assert again.neuron_steps == 0.0 < first.neuron_steps
    assert before == written(out) and report(again.findings) == report(first.findings)
    assert json.loads(before["findings.json"]) == json.loads(json.dumps(report(first.findings)))
    assert len(json.loads((out / "took.json").read_text("utf-8"))["calls"]) == 2


def test_a_stopped_gallery_goes_on(
    gallery: Made, tiny: Plan, silent: Bar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, first = gallery
    stopped = tmp_path / "tiny"
    count = 0

    @contextmanager
    def stopping(_: str) -> Any:
        def tell(told: Any) -> None:
            nonlocal count
            count += 1
            if count == 6:
                raise KeyboardInterrupt

        yield tell

    with pytest.raises(KeyboardInterrupt):
        reproduce(stopped, tiny, stopping, workers=1)
    assert not (stopped / "findings.json").exists()
    done = [s for s in (stopped / "data").iterdir() if not open_store(s).missing()]
    assert 0 < len(done) < len(tiny.sweeps)
    monkeypatch.setattr(module, "draw_all", lambda *_: None)
    made = reproduce(stopped, tiny, silent, workers=1)
    assert 0 < made.neuron_steps < first.neuron_steps
    whole = {name: data for name, data in written(out).items() if not name.startswith("figures")}
    assert whole == written(stopped)


def test_data_of_another_plan_are_refused(gallery: Made, silent: Bar, tmp_path: Path) -> None:
    shutil.copytree(gallery[0] / "data", tmp_path / "g/data")
    with pytest.raises(ConfigError, match=r"map-ei.zarr holds another sweep: .*Fix: "):
        reproduce(tmp_path / "g", quick(), silent, workers=1)


def test_a_search_beside_it_is_told(
    gallery: Made, tiny: Plan, silent: Bar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "draw_all", lambda *_: None)
    shutil.copytree(gallery[0], tmp_path / "tiny")
    (tmp_path / "search").mkdir()
    (tmp_path / "search/search.json").write_text(
        json.dumps({"settings": 240, "candidates": 3, "confirmed": 0, "refined": [{}, {}, {}]}))
    shutil.copy(gallery[0] / "figures/rate.png", tmp_path / "search/search.png")
    made = reproduce(tmp_path / "tiny", tiny, silent, workers=1)
    assert "Of 240 settings 3 looked so" in {one.name: one.found for one in made.findings}["searched"]
    text = (tmp_path / "tiny/index.html").read_text("utf-8")
    assert 'src="figures/search.png"' in text and "This page does not know" not in text
    for wrong in ("[]", "{}", "nonsense", '{"refined": 1}'):
        (tmp_path / "search/search.json").write_text(wrong)
        with pytest.raises(ConfigError, match=r"is no report of hhdelay search. Fix: "):
            reproduce(tmp_path / "tiny", tiny, silent, workers=1)
    with pytest.raises(ConfigError, match=r"cannot read .*Fix: "):
        reproduce(tmp_path / "tiny", tiny, silent, search=tmp_path / "none")


def test_a_command_of_the_page_makes_the_same_store(
    gallery: Made, tiny: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("line-ei", "size-ei-10"):
        assert main([*shlex.split(tiny.source(name).commands()[0])[1:], "--workers", "1"]) == 0
        store = f"{name}.zarr"
        assert written(tmp_path / store) == written(gallery[0] / "data" / store)


@pytest.mark.parametrize("make", [full, quick])
def test_the_plans_can_be_run(make: Callable[[], Plan], gallery: Made) -> None:
    """Every recipe and axis is valid, and every figure and claim finds its sweep."""
    plan = make()
    work = 0.0      # neuron-steps
    for source in plan.sweeps:
        sweep = source.sweep()
        its = sweep.recipe.simulation
        assert sweep.points == source.points
        work += sweep.points * its.replicas * sweep.recipe.motif.neurons * its.duration_ms / its.dt_ms
    assert all(commands(plan, picture) for picture in PICTURES.values())
    assert plan.judged == ("--quick" not in page(plan, gallery[1].findings, gallery[0]))
    assert work < (6e10 if plan.judged else 2e8)
