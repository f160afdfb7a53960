"""`--dry-run` of the commands that train: what a run would ask of this machine; nothing is started."""

from __future__ import annotations

import os
import shutil
import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fathom.cli.doctor import run
from fathom.config.folder import check_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fathom.config.footprint import Share
    from fathom.config.model import ModelConfig
    from fathom.config.train import TrainConfig

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and start nothing.")]
Json = Annotated[bool, typer.Option("--json", help="With --dry-run: one JSON object.")]

MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, on Linux
GPU = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")  # in MiB, a line a GPU
MIB = 2**20
PER_BATCH = ("activations", "logits")  # what a smaller micro-batch makes smaller


class Room(NamedTuple):
    """Where a run would compute, and how much memory there is; None = unknown."""

    device: str
    bytes: int | None


def dry_run(model: ModelConfig, train: TrainConfig, out: Path, *, title: str, as_json: bool) -> None:
    """Print what training `model` would take; a warning on stderr for what this machine has not got.

    errors   ConfigError when the run has no budget, as the run itself would say
    """
    from fathom.train.budget import Budget

    check_folder(out)
    Budget(train)
    found = estimate(model, train, out)
    print(dumps(found) if as_json else table(found, title))
    for warning in found["warnings"]:
        print(f"fathom: warning: {warning}", file=sys.stderr)


def estimate(model: ModelConfig, train: TrainConfig, out: Path) -> dict[str, Any]:
    """Every figure of the dry run, as JSON has them; None for what nobody can know yet."""
    from functools import partial

    from fathom.config.counts import count, flops_per_token
    from fathom.config.footprint import checkpoint_bytes, checkpoints_at_once, memory, plan
    from fathom.train.schedule import batch_rows

    place = room(train.device)
    faster = "bf16" if place.device == "cuda" else "fp32"
    precision = faster if train.precision == "auto" else train.precision
    length = plan(train, partial(batch_rows, train))
    shares = memory(model, train, precision=precision, fused=place.device == "cuda")
    per_token = flops_per_token(model, train.seq_len)
    counts = count(model)
    one, most = checkpoint_bytes(model, train), checkpoints_at_once(train, length.steps)
    disk = {"checkpoint": one, "at_once": most, "needed": most * one, "free": free_disk(out)}
    return {
        "parameters": {"total": counts.total, "active": counts.active, "mtp": counts.mtp},
        "run": {**length._asdict(), "minutes": train.minutes or None},
        "flops": {
            "token": per_token,
            "step": per_token * length.full_tokens,
            "run": None if length.tokens is None else per_token * length.tokens,
        },
        "precision": precision,
        "memory": {share.name: share.bytes for share in shares},
        "formulas": {share.name: share.formula for share in shares},
        "memory_needed": sum(share.bytes for share in shares),
        "device": place.device,
        "memory_here": place.bytes,
        "disk": disk,
        "warnings": warnings(shares, place, disk),
    }


def warnings(shares: Sequence[Share], place: Room, disk: dict[str, int | None]) -> list[str]:
    """What does not fit, a line each."""
    from fathom.report.units import size

    found = []
    whole = sum(share.bytes for share in shares)
    if place.bytes is not None and whole > place.bytes:
        always = sum(share.bytes for share in shares if share.name not in PER_BATCH)
        fix = "set train.micro_batch=1 or train.recompute=true" if always < place.bytes else "a smaller model"
        found.append(f"the run needs about {size(whole)} of memory, here are {size(place.bytes)}. Fix: {fix}")
    needed, free = disk["needed"], disk["free"]
    if needed is not None and free is not None and needed > free:
        fix = "lower train.save.keep, or give --out on another disk"
        found.append(f"its checkpoints need {size(needed)} of disk, {size(free)} are free. Fix: {fix}")
    return found


def room(device: str) -> Room:
    """The memory of the first GPU where a run would use one, else of this machine or of its container."""
    gpus = (run(GPU) or "").split() if device != "cpu" else []
    if gpus and gpus[0].isdigit():
        return Room("cuda", int(gpus[0]) * MIB)
    if device == "cuda":
        return Room("cuda", None)
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # a system that does not say
        return Room("cpu", None)
    try:
        limit = MEMORY_LIMIT.read_text("ascii").strip()
    except (OSError, ValueError):
        limit = "max"
    return Room("cpu", min(whole, int(limit)) if limit.isdigit() else whole)


def free_disk(out: Path) -> int | None:
    """Bytes free where `out` will be: on the disk of the nearest folder above it that exists."""
    for place in (out.absolute(), *out.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except (OSError, ValueError):
            continue
    return None


def table(found: dict[str, Any], title: str) -> str:
    """The same for people."""
    from fathom.report.units import size

    parameters, disk = found["parameters"], found["disk"]
    sizes = ", ".join(f"{n:,} {name}" for name, n in parameters.items()).replace(" mtp", " for MTP")
    rows = [("parameters", sizes), *_work(found)]
    rows.append(("memory", f"{size(found['memory_needed'])} for one process, in {found['precision']}:"))
    rows += [
        ("", f"{size(held):>9}  {name}: {found['formulas'][name]}") for name, held in found["memory"].items()
    ]
    here = found["memory_here"]
    rows.append(("here", f"{'unknown' if here is None else size(here)} on the {found['device']}"))
    kept = f"at most {disk['at_once']} at a time: {size(disk['needed'])}"
    free = "unknown" if disk["free"] is None else size(disk["free"])
    rows.append(("disk", f"{size(disk['checkpoint'])} a checkpoint, {kept}; {free} free"))
    return "\n".join([f"{title}: a dry run, nothing is started", *(f"{a:<11}{b}" for a, b in rows)])


def _work(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Length of the run and its arithmetic."""
    from fathom.report.units import count, flops

    run, work = found["run"], found["flops"]
    first, full = run["first_tokens"], run["full_tokens"]
    batch = f"{count(full)} tokens a step" + (f", {count(first)} at first" if first != full else "")
    if run["steps"] is None:
        length = f"{run['minutes']:g} minutes; how many steps that is depends on the machine"
    else:
        length = f"{count(run['tokens'])} tokens in {run['steps']:,} steps"
    whole = "" if work["run"] is None else f", {flops(work['run'])} in all"
    return [
        ("run", f"{length}; {batch}"),
        ("arithmetic", f"{flops(work['token'])} a token, {flops(work['step'])} a step{whole}"),
    ]
