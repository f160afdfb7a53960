"""The tokenizer's files, as they travel from a corpus into a checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from fathom.checkpoint.json_file import read_json
from fathom.config.errors import DataError, need
from fathom.config.model import ModelConfig

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
FILES = (
    TOKENIZER,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


class SpecialIds(NamedTuple):
    """The ids that config.json repeats from the tokenizer; None = it has no such token."""

    bos: int | None = None
    eos: int | None = None
    pad: int | None = None


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files, those that exist; DataError if tokenizer.json is not among them."""
    need(
        (source / TOKENIZER).is_file(),
        f"{source} has no {TOKENIZER}",
        fix="give the folder of a corpus or of a checkpoint",
        error=DataError,
    )
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def special_ids(source: Path) -> SpecialIds:
    """Ids of the tokens that tokenizer_config.json calls bos, eos and pad."""
    if not (source / SETTINGS).is_file():
        return SpecialIds()
    added = read_json(source / TOKENIZER).get("added_tokens") or []
    settings = read_json(source / SETTINGS)
    try:
        ids = {token["content"]: token["id"] for token in added}
        return SpecialIds(*(ids.get(_text(settings.get(f"{role}_token"))) for role in SpecialIds._fields))
    except (TypeError, KeyError) as error:
        raise DataError(
            f"{source / TOKENIZER}: its special tokens are damaged. Fix: copy the file again"
        ) from error


def check_tokenizer(size: int, config: ModelConfig) -> None:
    """DataError if the tokenizer has more ids than the model has rows; spare rows are fine, as in V3."""
    need(
        size <= config.vocab_size,
        f"the tokenizer has {size} ids, but the model has rows for {config.vocab_size}",
        fix=f"use the tokenizer saved with the model, or train one with model.vocab_size={size}",
        error=DataError,
    )


def _text(token: Any) -> Any:
    """A token is written as its text, or as a table that holds it."""
    return token.get("content") if isinstance(token, dict) else token
