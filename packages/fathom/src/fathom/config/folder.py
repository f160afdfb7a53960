"""Folders that are there whole or not at all.

A folder is written beside its place under a hidden name, flushed to the disk, and renamed. While it is
written its maker holds a lock that the system drops when the process ends, however it ends; a hidden folder
that nobody holds is left over, and the next writer clears it away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from fathom.config.errors import DataError, DiskError, need

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # no space, over quota, over the limit of a file
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
MISPLACED = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
# .NAME.TOKEN.KIND: new = being written, old = being replaced, gone = being deleted
HIDDEN = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>new|old|gone)")


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `path` when the block ends, and vanishes if the block fails.

    replace     an older `path` is put aside until the new one is in place; otherwise it is a DataError
    guarantee   at any moment, also after a power cut, `path` is the old folder or the new one, or (for an
                instant of a replacement) absent, with the old one kept aside for the next call to put back
    errors      DiskError if the disk is full or refuses
    """
    path = Path(path)
    with disk_errors(path):
        _check_place(path, replace)
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        temp, lock = _make(path)
        try:
            yield temp
            _flush_tree(temp)
            _check_place(path, replace)  # once more: another process may have made it meanwhile
            _put(temp, path)
            _flush(path.parent)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        finally:
            _release(lock)


def write_file(path: Path, text: str) -> None:
    """Write a small file so that no moment shows half of it, nor a power cut; DiskError as `new_folder`."""
    temp = path.with_name(f".{path.name}.tmp")  # always the same: what a killed writer left is overwritten
    with disk_errors(path):
        try:
            temp.write_text(text, encoding="utf-8", newline="\n")
            _flush(temp)
            os.replace(temp, path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise


def delete_folder(path: Path) -> None:
    """Delete `path` so that no moment shows half of it."""
    with disk_errors(path):
        gone = _hidden(path, "gone")
        os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)  # what is left is hidden, and swept later


def sweep(parent: Path) -> None:
    """Clear away what dead writers left in `parent`; what a living process is writing stays."""
    for left in sorted(parent.iterdir()):
        match = HIDDEN.fullmatch(left.name)
        if match is None or not left.is_dir():
            continue
        with contextlib.suppress(OSError):  # a file system without locks, or not ours to delete: leave it
            lock = _lock(left)
            if lock is None:
                continue
            target = parent / match["name"]
            try:
                if match["kind"] == "old" and not target.exists():
                    os.rename(left, target)
                else:
                    shutil.rmtree(left)
            finally:
                os.close(lock)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write `path` into one line: how much is free, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskError(
                f"the disk is full: {path} could not be written ({_free(path)} free there, it needs more); "
                f"nothing that was saved before is lost. Fix: free some space, or write to another disk"
            ) from error
        if error.errno in REFUSED and _concerns(error, path):
            raise DiskError(
                f"{path} could not be written ({error.strerror}); nothing that was saved before is lost. "
                f"Fix: allow writing there, or choose another folder"
            ) from error
        if error.errno in MISPLACED and _concerns(error, path):
            raise DataError(
                f"{path} cannot be made or read ({error.strerror}). Fix: choose another place"
            ) from error
        raise


def check_folder(path: Path) -> None:
    """DataError unless `path` is a folder or could become one."""
    with disk_errors(path):
        taken = path.is_symlink() or path.exists()
        need(path.is_dir() or not taken, f"{path} is no folder", fix="choose another", error=DataError)


def _check_place(path: Path, replace: bool) -> None:
    for above in path.parents:
        in_the_way = above.exists() and not above.is_dir()
        need(
            not in_the_way,
            f"{above} is a file, so {path} cannot be made",
            fix="choose another folder",
            error=DataError,
        )
    taken = path.exists() or path.is_symlink()
    free = not taken or (path.is_dir() and (replace or not any(path.iterdir())))
    need(free, f"{path} exists already", fix="choose another name, or move it away", error=DataError)


def _hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.{kind}")


def _make(path: Path) -> tuple[Path, int | None]:
    """A locked, empty folder beside `path`."""
    while True:
        temp = _hidden(path, "new")
        temp.mkdir()
        try:
            lock = _lock(temp)
        except OSError:  # a file system without locks: write all the same, nobody can sweep it
            return temp, None
        if lock is not None:  # else another process swept it in the instant before the lock
            return temp, lock


def _lock(folder: Path) -> int | None:
    """Hold `folder` until the descriptor is closed or the process ends; None if it is held or gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    if not folder.exists():
        os.close(descriptor)
        return None
    return descriptor


def _release(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _put(temp: Path, path: Path) -> None:
    """Rename `temp` to `path`; an older folder there steps aside first and is deleted after."""
    if not path.exists() or not any(path.iterdir()):
        os.rename(temp, path)
        return
    lock = None
    with contextlib.suppress(OSError):  # a file system without locks
        lock = _lock(path)
    aside = _hidden(path, "old")
    try:
        os.rename(path, aside)
        try:
            os.rename(temp, path)
        except BaseException:
            os.rename(aside, path)
            raise
        _flush(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        _release(lock)


def _flush_tree(folder: Path) -> None:
    for where, _, files in os.walk(folder):
        for file in files:
            _flush(Path(where, file))
        _flush(Path(where))


def _flush(path: Path) -> None:
    """Make the disk hold what the system has been given for `path`, a file or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free(path: Path) -> str:
    there = next((above for above in (path, *path.parents) if above.exists()), Path())
    return f"{shutil.disk_usage(there).free / 1e6:,.1f} MB"


def _concerns(error: OSError, path: Path) -> bool:
    """Whether `error` is about `path`, what is written for it, or a folder above it."""
    if error.filename is None:
        return True
    at = Path(os.fsdecode(error.filename))
    written_for = any(
        p.name.startswith(f".{path.name}.") and p.parent == path.parent for p in (at, *at.parents)
    )
    return written_for or at.is_relative_to(path) or path.is_relative_to(at)
