"""What a corpus folder says about itself: meta.json for the loader, report.json for people.

tokenizer.json, tokenizer_config.json ...              the tokenizer, as transformers reads it
train-00-00000.tokens, held_out-00-00000.tokens ...    shards: split, source's number, shard's number
meta.json, report.json                                 this page
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from fathom.config.errors import DataError, plain
from fathom.data.shards import HEADER_BYTES, Series, Shard

FORMAT = 1
SPLITS = ("train", "held_out")


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusMeta:
    """meta.json: the vocabulary, the sources, and the shards of each split and source."""

    vocab_size: int
    bos: int
    eos: int
    pad: int
    sources: tuple[str, ...]
    weights: tuple[float, ...]  # as configured; empty = in proportion to size
    files: Mapping[str, Sequence[Sequence[str]]]  # files[split][source]
    fingerprint: str  # of the tokens; equal for equal corpora
    config: Mapping[str, Any]  # DataConfig.content(): what it was built from

    def save(self, folder: Path) -> None:
        """Write meta.json."""
        _write_json(folder / "meta.json", {"format": FORMAT} | asdict(self))

    @classmethod
    def load(cls, folder: Path) -> CorpusMeta:
        """Read meta.json; DataError when the folder is no corpus."""
        fix = "build one with `fathom data build`"
        try:
            table = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            if table.pop("format") != FORMAT:
                raise DataError(f"{plain(str(folder))} has a format this version cannot read. Fix: {fix}")
            table |= {name: tuple(table[name]) for name in ("sources", "weights")}
            names = [name for split in SPLITS for series in table["files"][split] for name in series]
            if any(Path(name).name != name or name in ("", ".", "..") for name in names):
                raise ValueError("a shard lies outside the folder")
            return cls(**table)
        except OSError as error:
            reason = f"meta.json: {error.strerror}"
        except (ValueError, KeyError, TypeError, AttributeError):
            reason = "meta.json is damaged"
        raise DataError(f"{plain(str(folder))} is not a corpus ({reason}). Fix: {fix}")

    def series(self, folder: Path, split: str) -> list[Series]:
        """The documents of each source of one split, mapped into memory."""
        return [Series([Shard.open(folder / name) for name in names]) for names in self.files[split]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceReport:
    """What one source gave to one split."""

    source: str
    split: str
    documents: int
    tokens: int  # BOS and EOS included
    bytes: int  # UTF-8 of the text

    @property
    def bytes_per_token(self) -> float:
        """Compression; 0 where there is no token."""
        return self.bytes / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusReport:
    """report.json: what came into a corpus."""

    folder: Path
    vocab_size: int
    sources: tuple[SourceReport, ...]

    def tokens(self, split: str) -> int:
        """Tokens of one split."""
        return sum(row.tokens for row in self.sources if row.split == split)

    def save(self, folder: Path) -> None:
        """Write report.json."""
        rows = [asdict(row) | {"bytes_per_token": round(row.bytes_per_token, 4)} for row in self.sources]
        _write_json(folder / "report.json", {"vocab_size": self.vocab_size, "sources": rows})

    def table(self) -> Table:
        """The same as a table for the terminal."""
        table = Table("source", "split", title=Text(f"{self.folder}: vocabulary of {self.vocab_size:,}"))
        for name in ("documents", "tokens", "bytes", "bytes/token"):
            table.add_column(name, justify="right")
        for row in self.sources:
            counts = (f"{n:,}" for n in (row.documents, row.tokens, row.bytes))
            table.add_row(
                Text(row.source), row.split.replace("_", "-"), *counts, f"{row.bytes_per_token:.2f}"
            )
        return table


def fingerprint(folder: Path, files: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """A hash of every shard's header, which holds the shard's checksums, and of the tokenizer."""
    digest = hashlib.blake2b((folder / "tokenizer.json").read_bytes(), digest_size=16)
    for split in SPLITS:
        for name in (name for names in files[split] for name in names):
            with (folder / name).open("rb") as shard:
                digest.update(name.encode() + shard.read(HEADER_BYTES))
    return digest.hexdigest()


def _write_json(path: Path, table: dict[str, Any]) -> None:
    path.write_text(json.dumps(table, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n")
