"""Models in and out: any official folder in, FP8 or not, and the layout of the official release out."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fathom.checkpoint.card import About, model_card
from fathom.checkpoint.convert import Told, convert
from fathom.checkpoint.find import resolve
from fathom.checkpoint.fp8_blocks import QUANTIZATION, Weights, check_dtypes, dtype_of, layout
from fathom.checkpoint.hf_config import hf_config
from fathom.checkpoint.inventory import CONFIG, Inventory, take_inventory
from fathom.checkpoint.json_file import read_json, write_json
from fathom.checkpoint.manifest import outside_state, verify
from fathom.checkpoint.names import copies, official, shapes
from fathom.checkpoint.stream import SHARD_BYTES, Shard, plan_shards
from fathom.checkpoint.tensors import DTYPES, Kind, Stored, read_header
from fathom.checkpoint.tokenizer_files import TOKENIZER, SpecialIds, copy_tokenizer, special_ids
from fathom.checkpoint.training import EMA, STATE, TRAINER
from fathom.config.errors import DataError, need
from fathom.config.folder import new_folder

GENERATION = "generation_config.json"
CARD = "README.md"
CHAT_TEMPLATE = "chat_template.jinja"
LICENCES = "LICENSE*"  # they travel with the weights
TABLES = {"embed.weight": "model.embed_tokens.weight", "head.weight": "lm_head.weight"}  # that MTP repeats


class Written(NamedTuple):
    """What came out."""

    folder: Path
    weights: str  # their dtype, as config.json has it, or fp8
    files: int
    tensors: int
    nbytes: int


def import_hf(
    source: Path | str, folder: Path, *, shard_bytes: int = SHARD_BYTES, told: Told | None = None
) -> Written:
    """Make `folder`, new or empty, from official weights: FP8 becomes bf16, other floats stay as they are.

    source        a folder as DeepSeek-V3 was released, or as transformers saves one
    shard_bytes   most bytes of tensors in a file
    told          hears of bytes written and bytes in all
    guarantee     streams: memory stays below a few rows of a tensor, whatever the size of the model
    errors        DataError names what is damaged, missing or not finite; DiskError if there is no room
    """
    inventory = _open(source)
    kinds = {
        name: kind if kind.dtype == "F32" else Kind(DTYPES[dtype_of(inventory.stored[name])], kind.shape)
        for name, kind in layout(inventory.config, "bf16").items()  # F32: the routing bias, in every file
        if name in inventory.stored
    }
    shards = plan_shards(kinds, shard_bytes)
    dtype = str(dtype_of(inventory.stored["model.embed_tokens.weight"])).removeprefix("torch.")
    with new_folder(folder) as temp:
        convert(inventory.stored, shards, temp, told=told)
        _write_settings(temp, inventory, dtype, {})
    return _written(folder, dtype, shards)


def export_hf(
    source: Path | str,
    folder: Path,
    *,
    weights: Weights = "bf16",
    shard_bytes: int = SHARD_BYTES,
    average: bool = False,
    told: Told | None = None,
) -> Written:
    """Make `folder`, new or empty, as DeepSeek-V3 was released, with a model card.

    source        a run (its newest checkpoint), a checkpoint, or any official folder
    weights       bf16, or fp8 for the linear maps as in the release; FP8 weights that are FP8 already stay
                  as they are to the bit
    shard_bytes   most bytes of tensors in a file
    average       the run's moving average of the weights instead of the weights
    guarantee     streams: memory stays below a few rows of a tensor, whatever the size of the model
    errors        DataError names what is damaged, missing or not finite; DiskError if there is no room
    """
    inventory = _open(source, *([f"{STATE}/{EMA}"] if average else []))
    stored = inventory.stored | (_averages(inventory) if average else {})
    stored |= {name: stored[TABLES[place.ours]] for name, place in copies(inventory.config).items()}
    shards = plan_shards(layout(inventory.config, weights), shard_bytes)
    extra = {"quantization_config": QUANTIZATION} if weights == "fp8" else {}
    with new_folder(folder) as temp:
        convert(stored, shards, temp, told=told)
        _write_settings(temp, inventory, "bfloat16", extra)
        about = About(
            name=Path(folder).absolute().name,
            weights=weights,
            nbytes=sum(shard.nbytes for shard in shards),
            chats=(temp / CHAT_TEMPLATE).is_file(),
            average=average,
            trainer=_trainer(inventory.folder),
        )
        (temp / CARD).write_text(model_card(inventory.config, about), encoding="utf-8")
    return _written(folder, "fp8" if weights == "fp8" else "bfloat16", shards)


def _open(source: Path | str, *also: str) -> Inventory:
    """What `source` holds, checked as `load_model_state` does, with the files in `also`."""
    inventory = take_inventory(resolve(source))
    verify(inventory.folder, only=lambda name: outside_state(name) or name in also)
    return inventory


def _averages(inventory: Inventory) -> dict[str, Stored]:
    """Where the run's average of each weight is; an expert's is a part of a stacked tensor."""
    path = inventory.folder / STATE / EMA
    need(
        path.is_file(),
        f"{inventory.folder} keeps no average of its weights",
        fix="leave out --average, or train with train.optim.ema=0.999 or so",
        error=DataError,
    )
    header, want, found = read_header(path), shapes(inventory.config), {}
    check_dtypes(header)
    for name, place in official(inventory.config).items():
        whole = header.get(place.ours)
        if whole is None or whole.shape != want[place.ours]:
            raise DataError(f"{path} has no {place.ours} as {CONFIG} describes it. Fix: leave out --average")
        before = (place.expert or 0) * math.prod(place.shape) * dtype_of(whole).itemsize
        found[name] = Stored(whole.dtype, place.shape, path, whole.start + before)
    return found


def _write_settings(folder: Path, inventory: Inventory, dtype: str, extra: Mapping[str, Any]) -> None:
    """Everything but the weights and the card."""
    source = inventory.folder
    if (source / TOKENIZER).is_file():
        copy_tokenizer(source, folder)
    ids = _special_ids(source)
    config = hf_config(inventory.config, bos=ids.bos, eos=ids.eos, pad=ids.pad, dtype=dtype)
    write_json(folder / CONFIG, {**config, **extra})
    if (source / GENERATION).is_file():
        shutil.copyfile(source / GENERATION, folder / GENERATION)
    else:
        named = {f"{role}_token_id": value for role, value in ids._asdict().items() if value is not None}
        write_json(folder / GENERATION, named)
    for licence in sorted(source.glob(LICENCES)):
        if licence.is_file():
            shutil.copyfile(licence, folder / licence.name)


def _special_ids(source: Path) -> SpecialIds:
    """The ids that config.json names, and where it is silent those of the tokenizer."""
    said, known = read_json(source / CONFIG), special_ids(source)
    given = {role: _id(said.get(f"{role}_token_id")) for role in SpecialIds._fields}
    return known._replace(**{role: value for role, value in given.items() if value is not None})


def _id(value: Any) -> Any:
    """A number, or several as newer models have for the end; None for anything else."""
    several = isinstance(value, list) and value and all(type(v) is int for v in value)
    return value if several or type(value) is int else None


def _trainer(folder: Path) -> dict[str, Any] | None:
    """state/trainer.json for the card, if it can be read."""
    try:
        return read_json(folder / STATE / TRAINER)
    except DataError:
        return None


def _written(folder: Path, weights: str, shards: list[Shard]) -> Written:
    tensors, nbytes = sum(len(shard.kinds) for shard in shards), sum(shard.nbytes for shard in shards)
    return Written(Path(folder), weights, len(shards), tensors, nbytes)
