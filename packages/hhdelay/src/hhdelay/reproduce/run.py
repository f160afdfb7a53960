"""From an empty folder to the gallery: data, figures, findings, page. Stopped, it goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from hhdelay import __version__
from hhdelay.check import bifurcation_rows, firing_rows, rest_rows
from hhdelay.config.errors import ConfigError, need, plain
from hhdelay.plot.grid import grid_of
from hhdelay.reproduce.finding import Evidence, Finding
from hhdelay.reproduce.judge import findings
from hhdelay.reproduce.page import SEARCH, page
from hhdelay.reproduce.pictures import FOLDER, Data, draw_all, run_of
from hhdelay.reproduce.plan import Plan
from hhdelay.store.read import open_sweep
from hhdelay.sweep.run import Progress, Told, run_sweep

SHOWN = ("R", "R_low", "R_high", "mean_ms", "rate_Hz", "phase", "locking", "persists")
REPORT, PICTURE = "search.json", "search.png"   # of hhdelay search
Bar = Callable[[str], AbstractContextManager[Progress]]


class Gallery(NamedTuple):
    """What was made."""

    findings: list[Finding]
    seconds: float          # of this call
    neuron_steps: float     # of this call; 0 where all data were there


def reproduce(
    out: Path, plan: Plan, bar: Bar, *, workers: int | None = None, search: Path | None = None
) -> Gallery:
    """Fill the folder `out`: data/, figures/, findings.json, index.html, took.json.

    bar         makes a progress bar with a title
    search      folder of `hhdelay search` whose counts are a finding; default: one beside `out`, if there is
    raises      ConfigError; what was finished is kept, and the same call goes on

    All but took.json has the same bytes whenever the same plan is run.
    """
    begun = perf_counter()
    scan = read_search(search, out)
    _make(out / "data")
    _make(out / FOLDER)
    stages, steps = len(plan.sweeps) + 2, 0.0
    for k, source in enumerate(plan.sweeps, 1):
        with bar(f"{k} of {stages}: {source.title}") as tell:
            store = out / "data" / f"{source.name}.zarr"
            told = run_sweep(source.sweep(), store, workers=workers, tile=source.tile, progress=tell)
            steps += told.neuron_steps
    sweeps = {one.name: open_sweep(out / "data" / f"{one.name}.zarr", SHOWN) for one in plan.sweeps}
    with bar(f"{stages - 1} of {stages}: known values, single runs") as tell:
        known = [*rest_rows(), *bifurcation_rows(), *firing_rows()]
        runs = {}
        for k, shot in enumerate(plan.shots):
            tell(Told(k, len(plan.shots), 0.0, 0.0))
            runs[shot.name] = run_of(shot)
    if search_folder := _folder_of(search, out):
        _copy(search_folder / PICTURE, out / FOLDER / f"{SEARCH}.png")
    with bar(f"{stages} of {stages}: figures") as tell:
        draw_all(Data(sweeps, runs), out / FOLDER, lambda done, all_: tell(Told(done, all_, 0.0, 0.0)))
    grids = {name: grid_of(data) for name, data in sweeps.items()}
    evidence = Evidence(grids=grids, known=known, search=scan)
    found = findings(evidence, judged=plan.judged)
    _write(out / "findings.json", json.dumps(report(found), indent=1) + "\n")
    _write(out / "index.html", page(plan, found, out))
    made = Gallery(found, perf_counter() - begun, steps)
    took = {"calls": [*_calls(out / "took.json"), _took(made)]}
    _write(out / "took.json", json.dumps(took, indent=1) + "\n")
    return made


def report(found: Sequence[Finding]) -> dict[str, Any]:
    """findings.json."""
    return {"version": __version__, "findings": [one.plain() for one in found]}


def read_search(search: Path | None, out: Path) -> dict[str, Any] | None:
    """search.json of the folder given, or of one beside `out`; None where there is none there."""
    folder = _folder_of(search, out)
    if folder is None:
        return None
    path, fix = folder / REPORT, "give the folder that hhdelay search --out has filled"
    try:
        held = json.loads(path.read_text("utf-8"))
        need(isinstance(held["refined"], list), f"{plain(str(path))} is no report of hhdelay search", fix=fix)
        return {name: int(held[name]) for name in ("settings", "candidates", "confirmed")} | {
            "refined": held["refined"]}  # fmt: skip
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(f"cannot read {plain(str(path))} ({why}). Fix: {fix}") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{plain(str(path))} is no report of hhdelay search. Fix: {fix}") from None


def _folder_of(search: Path | None, out: Path) -> Path | None:
    beside = out.parent / "search"
    return search or (beside if (beside / REPORT).is_file() else None)


def _make(folder: Path) -> None:
    with _told(folder, "make"):
        folder.mkdir(parents=True, exist_ok=True)


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with _told(path, "write"):
        part.write_text(text, encoding="utf-8")
        part.replace(path)


def _copy(source: Path, target: Path) -> None:
    with _told(target, "write"):
        target.unlink(missing_ok=True)
        if source.is_file():
            shutil.copyfile(source, target)


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """What the disk refuses, in one line."""
    try:
        yield
    except OSError as error:
        why, fix = error.strerror or str(error), "give a folder that you may write to"
        raise ConfigError(f"cannot {what} {plain(str(path))} ({why}). Fix: {fix}") from None


def _took(made: Gallery) -> dict[str, Any]:
    return {"seconds": round(made.seconds, 1), "neuron_steps": made.neuron_steps, "version": __version__}


def _calls(path: Path) -> list[Any]:
    """Of earlier calls; none where the file is no such list."""
    try:
        held = json.loads(path.read_text("utf-8"))["calls"]
        return held if isinstance(held, list) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
