"""RUN/about.json: what a run is, on what it runs, and where its settings came from."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fathom import __version__
from fathom.config.counts import count, flops_per_token
from fathom.config.folder import disk_errors, write_file
from fathom.config.model import ModelConfig
from fathom.train.machine import Machine

ABOUT = "about.json"
CPUINFO = Path("/proc/cpuinfo")


def describe_run(
    title: str,
    recipe: Mapping[str, Any],
    origin: Mapping[str, str],
    machine: Machine,
    *,
    model: ModelConfig,
    seq_len: int,
) -> dict[str, Any]:
    """The object of about.json.

    recipe   as `to_dict` gives it
    origin   dotted setting -> where its value came from; may be empty
    """
    counts = count(model)
    return {
        "title": title,
        "fathom": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": describe_machine(machine),
        "origin": dict(origin),
        "recipe": dict(recipe),
        "parameters": {"total": counts.total, "active": counts.active, "mtp": counts.mtp},
        "flops_per_token": float(flops_per_token(model, seq_len)),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_machine(machine: Machine) -> dict[str, Any]:
    """Device, precision and measured rate; the processor, its cores that this process may use, its memory."""
    return {
        "device": machine.device.type,
        "precision": machine.precision,
        "products": machine.products or None,
        "peak_flops": machine.peak_flops,
        "threads": torch.get_num_threads(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def write_about(run: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write about.json; a run that goes on keeps the time of its first start. Returns what was written."""
    path = run / ABOUT
    written = dict(about) | {"started": _started(path) or about["started"]}
    with disk_errors(path):
        run.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    return written


def _started(path: Path) -> str | None:
    try:
        started = json.loads(path.read_text(encoding="utf-8"))["started"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return started if isinstance(started, str) else None


def _cpu() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
