"""From sources to a corpus folder: split, train a tokenizer, tokenise in parallel, write shards, report.

A large source is read twice, once to survey it and once to tokenise it, so that no text has to fit in memory.
The folder appears under its name when it is complete, and not at all when anything goes wrong; what a killed
build leaves behind is cleared away by the next one.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

from fathom.config.data import DataConfig
from fathom.config.errors import DataError, DiskError, need, plain
from fathom.config.folder import new_folder
from fathom.data.corpus import SPLITS, CorpusMeta, CorpusReport, SourceReport, fingerprint
from fathom.data.encode import Encoded, Task, encode_all
from fathom.data.progress import Progress
from fathom.data.shards import SeriesWriter
from fathom.data.sources import SPLITS_ITSELF, open_source
from fathom.data.survey import Part, Sample, Survey
from fathom.data.tokenizer import Tokenizer, valid_unicode

SAMPLE_PER_TOKEN = 2048  # characters that a trained tokenizer sees per token of its vocabulary
CHUNK = 1 << 18  # characters that a worker gets at a time


def build_corpus(config: DataConfig, out: Path, *, vocab_size: int | None = None) -> CorpusReport:
    """Build the corpus of `config` in the new folder `out`.

    vocab_size   of a tokenizer trained here, instead of config.vocab_size; a config.tokenizer must fit in it
    guarantee    the same config gives the same bytes for any number of workers (meta.json has a fingerprint);
                 after an error, an interrupt or a kill there is no folder
    errors       DataError: no text, a bad source or tokenizer, `out` exists; DiskError: full or not writable
    """
    out = Path(out)
    _check_place(out)
    with new_folder(out) as folder, Progress() as progress:
        surveys, samples = _read_all(config, vocab_size or config.vocab_size, progress)
        tokenizer = _tokenizer(config, vocab_size, surveys, samples, progress)
        tokenizer.save(folder)
        rows, files = _write_all(config, folder, tokenizer, surveys, progress)
        need(
            config.held_out == 0 or any(row.tokens for row in rows if row.split == "held_out"),
            "the sources are too small to hold any text out",
            fix="add text, or set data.held_out=0",
            error=DataError,
        )
        meta = CorpusMeta(
            vocab_size=tokenizer.size,
            bos=tokenizer.bos,
            eos=tokenizer.eos,
            pad=tokenizer.pad,
            sources=config.sources,
            weights=config.weights,
            files=files,
            fingerprint=fingerprint(folder, files),
            config=config.content(),
        )
        meta.save(folder)
        report = CorpusReport(folder=out, vocab_size=tokenizer.size, sources=tuple(rows))
        report.save(folder)
    return report


def _parts(config: DataConfig, name: str, survey: Survey) -> Iterator[Part]:
    """Every text of one source with its split."""
    for text in _texts(config, name) if survey.texts is None else survey.texts:
        yield from survey.split(text)
    if name in SPLITS_ITSELF and config.held_out > 0:
        yield from (Part("held_out", text) for text in _texts(config, name, held_out=True))


def _texts(config: DataConfig, name: str, *, held_out: bool = False) -> Iterator[str]:
    return (valid_unicode(document.text) for document in open_source(name, config, held_out=held_out))


def _read_all(config: DataConfig, vocab_size: int, progress: Progress) -> tuple[list[Survey], list[Sample]]:
    """Survey every source, and draw from each what the tokenizer learns from."""
    limit = 0 if config.tokenizer else SAMPLE_PER_TOKEN * vocab_size
    surveys, samples = [], []
    for name in config.sources:
        survey = Survey(share=0.0 if name in SPLITS_ITSELF else config.held_out)
        sample = Sample(limit)
        progress.start(f"reading {name}")
        for text in _texts(config, name):
            digest = survey.see(text)
            if limit:
                sample.offer(text, digest)
            progress.advance(len(text))
        surveys.append(survey)
        samples.append(sample)
    return surveys, samples


def _tokenizer(
    config: DataConfig,
    vocab_size: int | None,
    surveys: list[Survey],
    samples: list[Sample],
    progress: Progress,
) -> Tokenizer:
    """The configured tokenizer, or one trained on samples in the proportion in which the loader will draw."""
    if config.tokenizer:
        tokenizer = Tokenizer.load(config.tokenizer)
        need(
            vocab_size is None or tokenizer.size <= vocab_size,
            f"the tokenizer {plain(config.tokenizer)} has {tokenizer.size:,} tokens, the model {vocab_size}",
            fix="choose another data.tokenizer or a larger model.vocab_size",
            error=DataError,
        )
        return tokenizer
    progress.start("training the tokenizer")
    weights = config.weights or [survey.characters for survey in surveys]
    for sample, weight in zip(samples, weights, strict=True):
        sample.shrink(int(sample.limit * weight / sum(weights)))
    texts = (text for sample, survey in zip(samples, surveys, strict=True) for text in sample.texts(survey))
    return Tokenizer.train(texts, vocab_size or config.vocab_size)


def _write_all(
    config: DataConfig, folder: Path, tokenizer: Tokenizer, surveys: list[Survey], progress: Progress
) -> tuple[list[SourceReport], dict[str, list[list[str]]]]:
    """Tokenise every source into its shards: the rows of the report, and files[split][source]."""
    writers = {
        split: [SeriesWriter(folder, f"{split}-{i:02d}", tokenizer.size) for i in range(len(surveys))]
        for split in SPLITS
    }
    read = {split: [0] * len(surveys) for split in SPLITS}  # bytes
    progress.start("tokenising", total=sum(survey.characters for survey in surveys))
    tasks = (task for i in range(len(surveys)) for task in _tasks(config, i, surveys[i]))
    size = sum(survey.bytes for survey in surveys)
    try:
        with contextlib.closing(encode_all(tasks, tokenizer, folder, config.workers, size)) as results:
            for task, encoded in results:
                _store(task, encoded, writers, read)
                progress.advance(sum(len(text) for _, text in task.parts))
        for writer in (writer for split in SPLITS for writer in writers[split]):
            writer.close()
    finally:
        for writer in (writer for split in SPLITS for writer in writers[split]):
            writer.abandon()
    rows = [
        SourceReport(
            source=name, split=split, documents=writer.documents, tokens=writer.tokens, bytes=read[split][i]
        )
        for split in SPLITS
        for i, (name, writer) in enumerate(zip(config.sources, writers[split], strict=True))
    ]
    return rows, {split: [writer.files for writer in writers[split]] for split in SPLITS}


def _tasks(config: DataConfig, source: int, survey: Survey) -> Iterator[Task]:
    """The texts of one source in chunks of about CHUNK characters, each text with its own seed for FIM."""
    parts: list[Part] = []
    seeds, size = [], 0
    for index, part in enumerate(_parts(config, config.sources[source], survey)):
        parts.append(part)
        seeds.append(
            random.Random(f"{config.seed} {source} {index}").getrandbits(64) if config.fim_rate else 0
        )
        size += len(part.text)
        if size >= CHUNK:
            yield Task(source, parts, seeds, config.fim_rate)
            parts, seeds, size = [], [], 0
    if parts:
        yield Task(source, parts, seeds, config.fim_rate)


def _store(
    task: Task, encoded: Encoded, writers: dict[str, list[SeriesWriter]], read: dict[str, list[int]]
) -> None:
    start = 0
    for part, length, size in zip(task.parts, encoded.lengths, encoded.bytes, strict=True):
        writers[part.split][task.source].add(encoded.token_N[start : start + length])
        read[part.split][task.source] += size
        start += length


def _check_place(out: Path) -> None:
    """Nothing but an empty folder is where the corpus will be, and one can be there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    except OSError as error:
        what = f"cannot write {plain(str(out))} ({error.strerror})"
        raise DiskError(f"{what}. Fix: choose another folder") from None
    need(free, f"{plain(str(out))} exists", fix="name a new folder, or delete that one", error=DataError)
