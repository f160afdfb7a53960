"""The whole search in a folder: scan, run the chosen ones again, report, picture. Stopped, it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hhdelay.config.errors import ConfigError, plain
from hhdelay.plot import save
from hhdelay.search.classes import VARIABLES, verdicts
from hhdelay.search.picture import classes_figure
from hhdelay.search.report import chosen, report
from hhdelay.search.scan import refine, scan
from hhdelay.search.space import SETTINGS
from hhdelay.store.read import open_sweep
from hhdelay.sweep.run import Progress

Bar = Callable[[str], AbstractContextManager[Progress]]


def search(
    out: Path, count: int, bar: Bar, *, overrides: Sequence[str] = (), workers: int | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Scan `count` settings and run again those that were sought; `search.report.report` of both.

    bar         makes a progress bar with a title
    overrides   settings of every run
    writes      scan-COUNT.zarr, fine-COUNT.zarr, search.json and search.png into the folder `out`
    raises      ConfigError; what was finished is kept, and the same call goes on
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
        fix = "give a folder that you may write to"
        raise ConfigError(f"cannot make {plain(str(out))} ({why}). Fix: {fix}") from None
    stores = out / f"scan-{count}.zarr", out / f"fine-{count}.zarr"
    with bar(f"{count} settings, roughly") as tell:
        scan(stores[0], count, overrides=overrides, workers=workers, scheduler=scheduler, progress=tell)
    rough = verdicts(open_sweep(stores[0], VARIABLES))
    picked = [tuple(one.setting[name] for name in SETTINGS) for one in chosen(rough)]
    fine, again = None, []
    if picked:
        with bar(f"{len(picked)} of them again") as tell:
            refine(
                stores[1], picked, overrides=overrides, workers=workers, scheduler=scheduler, progress=tell
            )
        fine = open_sweep(stores[1], VARIABLES)
        again = verdicts(fine)
    found = report(rough, again)
    part = out / ".search.json.part"
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(out / "search.json")
    save(classes_figure(rough, fine, again), out / "search.png")
    return found
