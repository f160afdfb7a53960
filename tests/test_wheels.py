"""Both wheels, built, installed outside the tree without their sources in reach, and run."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from fathom import __version__ as FATHOM
from hhdelay import __version__ as HHDELAY


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=folder, env={}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Path of each package's wheel, built without isolation: the network is asked for nothing."""
    out = tmp_path_factory.mktemp("wheels")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q")
    for package in ("fathom", "hhdelay"):
        run(*pip, "--no-deps", "--no-build-isolation", "-w", out, root / "packages" / package, folder=out)
    return {"fathom": next(out.glob("fathom_lm-*.whl")), "hhdelay": next(out.glob("hhdelay-*.whl"))}


@pytest.fixture(scope="module")
def clean(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the two wheels, which borrow what they depend on from that of the tests.

    The borrowed folder is a plain entry of the path, so its own .pth files, by which the sources under test
    are installed, do not count.
    """
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", folder=folder)
    site = next((folder / "env/lib").glob("python*/site-packages"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "env/bin/python")
    run(*pip, "install", "-q", "--no-deps", "--no-index", *wheels.values(), folder=folder)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder


def test_the_wheels_hold_what_they_need_and_no_more(wheels: dict[str, Path]) -> None:
    held = {name: set(zipfile.ZipFile(wheel).namelist()) for name, wheel in wheels.items()}
    for preset in ("v3", "v2-lite", "moonlight", "small", "tiny"):
        assert f"fathom/config/presets/{preset}.toml" in held["fathom"]
    for name, files in held.items():
        info = {file.split("/")[0] for file in files} - {name}
        assert len(info) == 1 and info.pop().endswith(".dist-info"), f"{name} installs {info} beside itself"
        assert any(file.endswith("/licenses/LICENSE") for file in files), f"{name} has no licence"


def test_the_installed_package_is_the_wheel(clean: Path) -> None:
    code = "import fathom, hhdelay; print(fathom.__file__, hhdelay.__file__, sep='\\n')"
    where = run(clean / "env/bin/python", "-c", code, folder=clean)
    assert all(path.startswith(str(clean)) for path in where.splitlines())


def test_fathom_runs(clean: Path) -> None:
    assert run(clean / "env/bin/fathom", "--version", folder=clean) == f"fathom {FATHOM}\n"
    assert run(clean / "env/bin/python", "-m", "fathom", "--version", folder=clean) == f"fathom {FATHOM}\n"
    counts = json.loads(run(clean / "env/bin/fathom", "params", "tiny", "--json", folder=clean))
    assert set(counts) == {"total", "active", "mtp", "cache_elements_per_token"}
    assert all(isinstance(count, int) and count > 0 for count in counts.values())


def test_hhdelay_runs(clean: Path) -> None:
    assert run(clean / "env/bin/hhdelay", "--version", folder=clean) == f"hhdelay {HHDELAY}\n"
    assert run(clean / "env/bin/python", "-m", "hhdelay", "--version", folder=clean) == f"hhdelay {HHDELAY}\n"
