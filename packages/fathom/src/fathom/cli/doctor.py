"""`fathom doctor`: what this machine has of what the program can use, on one screen.

Every look is allowed to fail; what is missing is an answer, not an error.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fathom import __version__

SECONDS = 10                                        # for a program that is asked for its version
FAST_BF16 = ("amx_bf16", "avx512_bf16", "bf16")     # flags of x86 tiles, x86 vectors and ARM in /proc/cpuinfo
AMPERE = 8                                          # compute capability of the first bf16 tensor cores
COMPILERS = ("cc", "gcc", "clang")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SANDBOXES = {   # in the order of preference
    "bubblewrap": ("bwrap", "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "true"),
    "unshare": ("unshare", "-Urnp", "--fork", "true"),
}
OPTIONAL = {    # distribution: what it is for
    "llguidance": "JSON schema and regex",
    "fastapi": "server",
    "uvicorn": "server",
    "pyarrow": "Parquet",
    "zstandard": "Zstandard",
    "datasets": "hub data sets",
    "transformers": "parity tests",
    "tensorboard": "curves",
}
CPUINFO, MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")    # Linux only
GIB = 2**30


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
) -> None:
    """Show what this machine has of what fathom can use.

    \b
      fathom doctor
      fathom doctor --json
    """
    found = examine()
    print(json.dumps(found) if as_json else table(found))


def examine() -> dict[str, Any]:
    """Everything the table shows, as JSON-able values; what is missing is None or empty."""
    torch, problem = import_torch()
    return {
        "fathom": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "executable": sys.executable,
        "torch": torch_build(torch, problem),
        "cpu": cpu(torch),
        "cuda": cuda_devices(torch),
        "bf16": bf16(torch),
        "fp8": fp8(torch),
        "memory_gib": memory_gib(),
        "disk_free_gib": disk_free_gib(),
        "compiler": first_version(COMPILERS),
        "sandbox": sandbox(),
        "browser": first_version(BROWSERS),
        "packages": {name: package_version(name) for name in OPTIONAL},
    }


def table(found: dict[str, Any]) -> str:
    """One line a finding: fits a terminal of 24 lines and 100 columns."""
    torch, cpu, memory, disk = found["torch"], found["cpu"], found["memory_gib"], found["disk_free_gib"]
    cuda = [f"{device['name']}, {device['memory_gib']} GiB" for device in found["cuda"]]
    rows = [
        ("fathom", found["fathom"]),
        ("python", f"{found['python']} on {found['platform']}, {found['executable']}"),
        ("torch", ", ".join(filter(None, (torch["version"], torch["build"], torch["problem"])))),
        ("cpu", f"{cpu['cores']} cores" + (f", {cpu['capability']} kernels" if cpu["capability"] else "")),
        ("cuda", "; ".join(cuda) or "no device; runs use the CPU"),
        ("bf16", found["bf16"]["verdict"]),
        ("fp8", found["fp8"]["verdict"]),
        ("memory", f"{memory['free']} of {memory['total']} GiB free" if memory else "unknown"),
        ("disk", "unknown" if disk is None else f"{disk} GiB free in this folder"),
        ("compiler", found["compiler"] or "none; kernels use their plain form"),
        ("sandbox", found["sandbox"]["verdict"]),
        ("browser", found["browser"] or "none; `make system` installs Chromium"),
    ]
    rows += [(name, found["packages"][name] or f"not installed ({use})") for name, use in OPTIONAL.items()]
    return "\n".join(f"{name:<13} {value}"[:100] for name, value in rows)


def import_torch() -> tuple[Any, str | None]:
    """The module torch, or None and the first line of what stands in its way."""
    try:
        import torch
    except (ImportError, OSError) as error:   # OSError: one of its libraries does not load
        return None, (str(error).splitlines() or [type(error).__name__])[0]
    return torch, None


def torch_build(torch: Any, problem: str | None) -> dict[str, str | None]:
    """Version of torch and what it was built for."""
    if torch is None:
        return {"version": None, "build": None, "problem": problem}
    build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
    return {"version": str(torch.__version__), "build": build, "problem": None}


def cpu(torch: Any) -> dict[str, Any]:
    """Cores that this process may use, and the instruction set that torch's kernels chose."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": cores, "capability": torch.backends.cpu.get_cpu_capability() if torch else None}


def cuda_devices(torch: Any) -> list[dict[str, Any]]:
    """Name, compute capability and memory of every CUDA device; empty without one."""
    if torch is None or not torch.cuda.is_available():
        return []
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [
        {"name": d.name, "capability": f"{d.major}.{d.minor}", "memory_gib": round(d.total_memory / GIB, 1)}
        for d in devices
    ]


def bf16(torch: Any) -> dict[str, Any]:
    """Whether bf16 matrix products work where runs take place, and whether in hardware."""
    if torch is None:
        return {"works": None, "fast": None, "verdict": "unknown without torch"}
    if torch.cuda.is_available():
        device, (major, minor) = "cuda", torch.cuda.get_device_capability()
        found = [f"compute capability {major}.{minor}"] if major >= AMPERE else []
    else:
        device, found = "cpu", sorted(set(FAST_BF16) & cpu_flags())
    try:
        ones = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        works = bool((ones @ ones == 2).all())
    except RuntimeError:
        works = False
    speed = f"fast ({', '.join(found)})" if found else "not in hardware: multiplied in fp32"
    return {"works": works, "fast": bool(found), "verdict": f"works, {speed}" if works else "does not work"}


def fp8(torch: Any) -> dict[str, Any]:
    """Whether `train.precision=fp8` has tensor cores to run in, or only shows what it would do."""
    if torch is None:
        return {"fast": None, "verdict": "unknown without torch"}
    missing = "there is no CUDA device"
    if torch.cuda.is_available():
        from fathom.ops.fp8.hopper import why_not

        missing = why_not()
    if not missing:
        return {"fast": True, "verdict": "works, fast (tensor cores)"}
    return {"fast": False, "verdict": f"works, slower than bf16 ({missing}): multiplied as bf16 or fp32"}


def cpu_flags() -> set[str]:
    """Feature flags of the processors, as Linux lists them; empty elsewhere."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    named = [line for line in lines if line.startswith(("flags", "Features"))]   # x86, ARM
    return {flag for line in named for flag in line.split(":")[-1].split()}


def memory_gib() -> dict[str, float] | None:
    """Memory in total and free for a new program, in GiB; None where there is no /proc."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        total, free = kib["MemTotal"], kib["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return {"total": round(total * 1024 / GIB, 1), "free": round(free * 1024 / GIB, 1)}


def disk_free_gib() -> float | None:
    """Space left in the current folder, in GiB; None if the folder is gone."""
    try:
        return round(shutil.disk_usage(".").free / GIB, 1)
    except OSError:
        return None


def sandbox() -> dict[str, Any]:
    """The first sandbox that really runs a program here."""
    name = next((name for name, command in SANDBOXES.items() if run(command) is not None), None)
    if name == "bubblewrap":
        verdict = "bubblewrap works"
    elif shutil.which("bwrap"):
        verdict = "bubblewrap is here but may not make namespaces"
    else:
        verdict = "no bubblewrap; `make system` installs it"
    return {"name": name, "verdict": verdict + ("; unshare works" if name == "unshare" else "")}


def first_version(programs: Sequence[str]) -> str | None:
    """First line of `--version` of the first program that answers."""
    for program in programs:
        if answer := (run((program, "--version")) or "").strip():
            return answer.splitlines()[0]
    return None


def package_version(name: str) -> str | None:
    """Installed version of a distribution, without importing it."""
    from importlib import metadata  # here, because `fathom --help` need not wait for it

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def run(command: Sequence[str]) -> str | None:
    """What `command` printed; None if it is missing, fails, hangs or may not run."""
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
