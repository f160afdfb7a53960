"""Texts of a Hugging Face dataset, by name: hf:NAME or hf:NAME:SPLIT (the extra `hf`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fathom.config.errors import DataError, need
from fathom.data.rows import text_of

PREFIX = "hf:"


def hub_texts(name: str, text_field: str) -> Iterator[str]:
    """The texts of the dataset `name`, in its order, streamed; opened by this call, read as it is consumed.

    name     "hf:owner/name" (its split "train"), "hf:owner/name:validation", or "hf:owner/name:train[:1%]"
             (a slice cannot be streamed: its data is downloaded first)
    errors   DataError without the extra, without the network, without such a dataset, split or field
    """
    dataset, _, split = name.removeprefix(PREFIX).partition(":")
    need(
        bool(dataset),
        f"{name!r} names no dataset",
        fix="write hf:owner/name or hf:owner/name:split",
        error=DataError,
    )
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(
            f"{name} needs datasets, which is not installed. Fix: pip install 'fathom-lm[hf]'"
        ) from error
    try:
        rows = load_dataset(dataset, split=split or "train", streaming="[" not in split)
    except (
        Exception
    ) as error:  # offline, no such name, split or configuration: the library has no common base
        raise _failed(name, error) from error
    return _texts(name, rows, text_field)


def _texts(name: str, rows: Any, text_field: str) -> Iterator[str]:
    count = 0
    try:
        for row in rows:
            count += 1
            if text := text_of(row, text_field, f"{name}, row {count}"):
                yield text
    except DataError:
        raise
    except Exception as error:  # the network can fail at any row
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(
        f"{name} cannot be loaded ({reason}). Fix: check the name, the split and the network, "
        "or give a local .jsonl or .parquet file"
    )
