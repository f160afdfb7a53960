"""Conversations to fine-tune on: the generator's, or rows of .jsonl files with messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fathom.config.data import DataConfig
from fathom.config.errors import DataError, need
from fathom.data import smallworld
from fathom.data.files import find_files
from fathom.data.rows import json_rows

Messages = list[dict[str, Any]]
JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def open_conversations(name: str, config: DataConfig) -> Iterator[tuple[str, Messages]]:
    """(where it stands, messages) of each conversation of one source, always in the same order.

    name     "smallworld", or a .jsonl(.gz, .zst) file, folder or glob whose rows hold {"messages": [{"role",
             "content"}, ...]} or {"prompt", "completion"}
    errors   DataError naming file and line
    """
    if name == "smallworld":
        return ((name, messages) for messages in smallworld.chats(config.seed, config.documents))
    files = [path for path in find_files(name) if path.name.endswith(JSON_LINES)]
    need(
        len(files) > 0,
        f"{name} holds no conversations",
        fix="name .jsonl files of {\"messages\": [...]} rows, or smallworld",
        error=DataError,
    )
    return ((where, _messages(row, where)) for path in files for where, row in json_rows(Path(path)))


def _messages(row: Mapping[str, Any], where: str) -> Messages:
    if isinstance(row.get("messages"), list):
        return list(row["messages"])
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        return [
            {"role": "user", "content": row["prompt"]},
            {"role": "assistant", "content": row["completion"]},
        ]
    raise DataError(
        f"{where} holds no conversation; it has {', '.join(map(repr, row)) or 'no keys'}. "
        f'Fix: give each row {{"messages": [...]}}, or "prompt" and "completion"'
    )
