"""A folder is whole or absent: after an error, a kill, a full disk."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fathom.config import folder as module
from fathom.config.errors import DataError, DiskError
from fathom.config.folder import check_folder, delete_folder, new_folder, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def child(code: str, argument: Path) -> subprocess.Popen[str]:
    """Run `code` in another process; it knows `new_folder`, `target` (the argument), `os` and `sys`.

    The file is run by itself: through its package it would bring torch along, seconds a process.
    """
    head = "import os, runpy, sys\nfrom pathlib import Path\ntarget = Path(sys.argv[2])\n"
    head += "new_folder = runpy.run_path(sys.argv[1])['new_folder']\n"
    command = [sys.executable, "-c", head + textwrap.dedent(code), module.__file__, str(argument)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def killed(code: str, argument: Path) -> bool:
    """Whether the process that ran `code` was killed."""
    with child(code, argument) as process:
        return process.wait() == -signal.SIGKILL


def test_what_was_written_is_there(tmp_path: Path):
    target = tmp_path / "a" / "b" / "model"
    with new_folder(target) as folder:
        assert folder.parent == target.parent and not target.exists()
        (folder / "x").write_text("1", encoding="utf-8")
        (folder / "deep").mkdir()
        (folder / "deep" / "y").write_text("2", encoding="utf-8")
    assert (target / "deep" / "y").read_text(encoding="utf-8") == "2"
    assert names(target.parent) == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]):
    with pytest.raises(error), new_folder(tmp_path / "model") as folder:
        (folder / "x").write_text("1", encoding="utf-8")
        raise error
    assert names(tmp_path) == []


def test_nothing_is_overwritten_unasked(tmp_path: Path):
    (tmp_path / "model").mkdir()
    with new_folder(tmp_path / "model") as folder:  # an empty folder is no loss
        (folder / "x").write_text("1", encoding="utf-8")
    with pytest.raises(DataError, match=r"model exists already\. Fix: "), new_folder(tmp_path / "model"):
        pytest.fail("the block must not run")
    assert names(tmp_path / "model") == ["x"]


def test_replacing_swaps_all_at_once(tmp_path: Path):
    target = tmp_path / "model"
    for content in ("old", "new"):
        with new_folder(target, replace=True) as folder:
            (folder / content).touch()
    assert names(target) == ["new"] and names(tmp_path) == ["model"]
    with pytest.raises(ValueError), new_folder(target, replace=True) as folder:
        raise ValueError
    assert names(target) == ["new"] and names(tmp_path) == ["model"]


def test_a_failed_swap_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target, rename = tmp_path / "model", os.rename
    with new_folder(target) as folder:
        (folder / "old").touch()

    def refuse(source: Path, to: Path) -> None:
        if Path(source).name.endswith(".new"):
            raise OSError(errno.ENOSPC, "No space left on device", str(to))
        rename(source, to)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(DiskError), new_folder(target, replace=True) as folder:
        (folder / "new").touch()
    assert names(target) == ["old"] and names(tmp_path) == ["model"]


def test_all_is_on_the_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_rename(source: Path, to: Path) -> None:
        events.append("rename")
        rename(source, to)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    with new_folder(tmp_path / "model") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "x").touch()
        temp = folder.name
    before = events[: events.index("rename")]
    assert {temp, "deep", "x"} == set(before) and before.index("x") < before.index("deep")
    assert events[-1] == tmp_path.name, "the rename itself must reach the disk"


def test_a_killed_writer_leaves_no_folder_and_its_rest_is_cleared(tmp_path: Path):
    code = """
        with new_folder(target) as folder:
            (folder / "x").write_text("half")
            os.kill(os.getpid(), 9)
    """
    assert killed(code, tmp_path / "model")
    assert not (tmp_path / "model").exists() and len(names(tmp_path)) == 1
    with new_folder(tmp_path / "other") as folder:
        (folder / "x").touch()
    assert names(tmp_path) == ["other"]


def test_a_living_writer_is_left_alone(tmp_path: Path):
    code = """
        with new_folder(target) as folder:
            (folder / "slow").touch()
            print("writing", flush=True)
            sys.stdin.readline()
    """
    with child(code, tmp_path / "slow") as writer:
        assert writer.stdout is not None and writer.stdin is not None
        assert writer.stdout.readline() == "writing\n"
        with new_folder(tmp_path / "quick") as folder:
            (folder / "x").touch()
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.wait() == 0
    assert names(tmp_path) == ["quick", "slow"] and names(tmp_path / "slow") == ["slow"]


def test_a_kill_in_the_middle_of_a_swap_loses_nothing(tmp_path: Path):
    with new_folder(tmp_path / "model") as folder:
        (folder / "old").touch()
    code = """
        rename = os.rename
        def kill(source, to):
            if str(source).endswith(".new"):
                os.kill(os.getpid(), 9)
            rename(source, to)
        os.rename = kill
        with new_folder(target, replace=True) as folder:
            (folder / "new").touch()
    """
    assert killed(code, tmp_path / "model")
    assert not (tmp_path / "model").exists(), "the kill came between the two renames"
    with new_folder(tmp_path / "other") as folder:
        (folder / "x").touch()
    assert names(tmp_path) == ["model", "other"] and names(tmp_path / "model") == ["old"]


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing is swept there, since nobody can tell the dead from the living."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".model.0a1b2c3d.new").mkdir()
    for content in ("old", "new"):
        with new_folder(tmp_path / "model", replace=True) as folder:
            (folder / content).touch()
    assert names(tmp_path / "model") == ["new"] and names(tmp_path) == [".model.0a1b2c3d.new", "model"]


def test_names_of_other_programs_are_left_alone(tmp_path: Path):
    for name in (".git", ".model.new", ".cache", "model.0a1b2c3d.new"):
        (tmp_path / name).mkdir()
    (tmp_path / ".model.0a1b2c3d.new").touch()  # a file
    before = names(tmp_path)
    with new_folder(tmp_path / "x") as folder:
        (folder / "x").touch()
    assert names(tmp_path) == sorted([*before, "x"])


def test_a_full_disk_is_one_line(tmp_path: Path):
    """/dev/full is a disk that is always full."""
    with pytest.raises(DiskError) as caught, new_folder(tmp_path / "model") as folder:
        (folder / "weights").symlink_to("/dev/full")
        (folder / "weights").write_bytes(b"x" * 100_000)
    text = str(caught.value)
    assert "the disk is full" in text and str(tmp_path / "model") in text and "MB free" in text
    assert "nothing that was saved before is lost. Fix: " in text and "\n" not in text
    assert caught.value.exit_code == 1 and names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_way_to_be_full_is_known(tmp_path: Path, code: int):
    with pytest.raises(DiskError, match="the disk is full"), new_folder(tmp_path / "model"):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_disk_that_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DiskError, match=r"could not be written .*Fix: allow"), new_folder(tmp_path / "model"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize(
    "error",
    [PermissionError(errno.EACCES, "no", "/elsewhere/secret"), FileNotFoundError(errno.ENOENT, "no", "x")],
)
def test_errors_about_other_files_stay_what_they_are(tmp_path: Path, error: OSError):
    with pytest.raises(type(error)) as caught, new_folder(tmp_path / "model"):
        raise error
    assert caught.value is error


def test_a_file_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match=r"file is a file, so .* Fix: "),
        new_folder(tmp_path / "file" / "model"),
    ):
        pytest.fail("the block must not run")
    with pytest.raises(DataError, match="exists already"), new_folder(tmp_path / "file"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("kind", ["a dangling link", "too long a name"])
def test_a_place_that_cannot_be_is_one_line_before_any_work(tmp_path: Path, kind: str):
    target = tmp_path / ("x" * 300 if kind == "too long a name" else "link")
    if kind == "a dangling link":
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="Fix: "), new_folder(target):
        pytest.fail("the block must not run")
    with pytest.raises(DataError, match="Fix: "):
        check_folder(target)


def test_a_file_is_no_folder(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is no folder"):
        check_folder(tmp_path / "file")
    check_folder(tmp_path)
    check_folder(tmp_path / "not yet")


def test_deleting_is_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "x").touch()

    def stop(path: Path, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", stop)
        delete_folder(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with new_folder(tmp_path / "next") as folder:
        (folder / "x").touch()
    assert names(tmp_path) == ["next"]


def test_what_another_process_made_meanwhile_is_not_overwritten(tmp_path: Path):
    with pytest.raises(DataError, match=r"exists already\. Fix: "), new_folder(tmp_path / "model") as folder:
        (folder / "mine").touch()
        with new_folder(tmp_path / "model") as other:
            (other / "theirs").touch()
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["theirs"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_file(tmp_path / "x", "old\n")
    (tmp_path / ".x.tmp").write_text("half", encoding="utf-8")  # of a writer that was killed
    write_file(tmp_path / "x", "new\n")
    assert (tmp_path / "x").read_bytes() == b"new\n" and names(tmp_path) == ["x"]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="the disk is full"):
        write_file(tmp_path / "x", "newer")
    assert (tmp_path / "x").read_bytes() == b"new\n" and names(tmp_path) == ["x"]
