"""Rows of .jsonl and .parquet files, and the text in one of their fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fathom.config.errors import DataError, need
from fathom.data.text_file import decoded, lines

PARQUET_ROWS = 256  # decoded at a time


def json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("FILE:LINE", row) for every line of a .jsonl file that is not blank.

    errors   DataError naming file and line where a line is not a JSON object
    """
    for number, line in enumerate(lines(decoded(path)), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = (
                f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            )
            raise DataError(
                f"{where} is not valid JSON ({reason}). Fix: write one object on each line"
            ) from None
        need(
            isinstance(row, dict),
            f"{where} is a JSON {_json_kind(row)}, not an object",
            fix='write one object on each line, such as {"text": "..."}',
            error=DataError,
        )
        yield where, row


def json_texts(path: Path, field: str) -> Iterator[str]:
    """The texts of a .jsonl file; rows whose text is empty or null are left out."""
    for where, row in json_rows(path):
        if text := text_of(row, field, where):
            yield text


def text_of(row: Mapping[str, Any], field: str, where: str) -> str:
    """The text in `field` of `row`, "" for null; DataError naming `where` and the keys it has otherwise."""
    if field not in row:
        raise DataError(f"{where} has no {field!r}; it has {_listed(row)}. Fix: {_which_field(row)}")
    text = row[field]
    if text is None:
        return ""
    need(
        isinstance(text, str),
        f"{where}: {field!r} is a JSON {_json_kind(text)}, not text",
        fix="set data.text_field to a key whose value is text",
        error=DataError,
    )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {field!r} holds half a surrogate pair at character {error.start}, which is no text. "
            "Fix: write the whole character, or take the row out"
        ) from None
    return str(text)


def _which_field(row: Mapping[str, Any]) -> str:
    texts = [key for key, value in row.items() if isinstance(value, str)]
    if "messages" in row:
        return "this is a chat; use the file for fine-tuning, or give its rows a text"
    if texts:
        return f"set data.text_field to {' or '.join(repr(key) for key in texts[:5])}"
    return "give every row a text"


def _listed(row: Mapping[str, Any]) -> str:
    return ", ".join(repr(key) for key in list(row)[:10]) or "no keys"


def _json_kind(value: Any) -> str:
    kinds = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")


def parquet_texts(path: Path, field: str) -> Iterator[str]:
    """The texts of one column of a .parquet file; rows that are empty or null are left out.

    errors   DataError where the file is not parquet, or has no such column, or the column is not text
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_column(file.schema_arrow, field, path)
            for batch in file.iter_batches(PARQUET_ROWS, columns=[field]):
                yield from (text for text in batch.column(0).to_pylist() if text)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path} cannot be read as parquet: {reason}. Fix: fetch or write it again"
        ) from error


def _check_column(schema: Any, field: str, path: Path) -> None:
    import pyarrow.types as kinds

    is_text = {
        name: kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)
        for name, kind in zip(schema.names, map(_plain_type, schema.types), strict=True)
    }
    texts = [name for name, text in is_text.items() if text]
    fix = (
        f"set data.text_field to {' or '.join(map(repr, texts))}"
        if texts
        else "give the file a column of text"
    )
    has = ", ".join(map(repr, schema.names)) or "none"
    need(field in is_text, f"{path} has no column {field!r}; it has {has}", fix=fix, error=DataError)
    need(is_text.get(field, False), f"{path}: column {field!r} is not text", fix=fix, error=DataError)


def _plain_type(kind: Any) -> Any:
    import pyarrow.types as kinds

    return kind.value_type if kinds.is_dictionary(kind) else kind
