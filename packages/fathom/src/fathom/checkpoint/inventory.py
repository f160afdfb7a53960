"""What a folder of weights holds, and whether that is all it promises; no weight is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from fathom.checkpoint.fp8_blocks import check_dtypes, check_quantization, is_scale
from fathom.checkpoint.hf import check_shapes
from fathom.checkpoint.hf_config import model_config
from fathom.checkpoint.json_file import read_json
from fathom.checkpoint.tensors import Stored, read_header
from fathom.config.errors import DataError, need, plain
from fathom.config.model import ModelConfig

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
FIX = "copy the missing files, or use another checkpoint"


@dataclass(frozen=True, slots=True)
class Inventory:
    """A complete model: its network, and where each official tensor is, scales of FP8 weights included."""

    folder: Path
    config: ModelConfig
    stored: dict[str, Stored]


def take_inventory(folder: Path) -> Inventory:
    """Check that `folder` is a whole model: config, files, every tensor with its shape, by the headers alone.

    MTP modules that the config names but no file holds (other programs drop them when they save) are taken
    out of the config: `mtp.depth` is then 0.
    errors   DataError that names the file, the tensor and what is wrong with it
    """
    config = read_config(folder)
    check_quantization(read_json(folder / CONFIG), str(folder / CONFIG))
    stored = _stored(folder)
    check_dtypes(stored)
    layers = (LAYER.match(name) for name in stored)
    if not any(layer and int(layer[1]) >= config.num_layers for layer in layers):
        config = replace(config, mtp=replace(config.mtp, depth=0))
    found = {name: tensor.shape for name, tensor in stored.items() if not is_scale(name)}
    check_shapes(found, config, lambda name: stored[name].path if name in stored else folder)
    return Inventory(folder, config, stored)


def read_config(folder: Path) -> ModelConfig:
    """The network of the model in `folder`."""
    path = folder / CONFIG
    return model_config(read_json(path), folder.name or "imported", where=str(path))


def has_weights(folder: Path) -> bool:
    """Whether `folder` looks like a model: a config and weights, of whatever quality."""
    return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in (WEIGHTS, INDEX))


def refuse_pickles(folder: Path) -> None:
    """DataError if the only weights in `folder` are pickled: reading those runs whatever code is in them."""
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    need(
        not pickled,
        f"{folder} holds only pickled weights ({pickled[0] if pickled else ''}), which can run code",
        fix="convert them to safetensors where that does no harm, for example with transformers",
        error=DataError,
    )


def _stored(folder: Path) -> dict[str, Stored]:
    """Every tensor's header entry; one file, or many with an index."""
    if (folder / WEIGHTS).is_file():
        return read_header(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        refuse_pickles(folder)
        raise DataError(f"{folder} has neither {WEIGHTS} nor {INDEX}. Fix: {FIX}")
    return _indexed(folder)


def _indexed(folder: Path) -> dict[str, Stored]:
    path = folder / INDEX
    names = read_json(path).get("weight_map")
    sound = isinstance(names, dict) and all(isinstance(file, str) and _plain(file) for file in names.values())
    need(sound, f"{path} has no weight_map from tensors to files beside it", fix=FIX, error=DataError)
    assert isinstance(names, dict)
    headers = {file: read_header(folder / file) for file in sorted(set(names.values()))}
    for name, file in names.items():
        need(
            name in headers[file],
            f"{folder / file} lacks {plain(name)}, which {INDEX} promises",
            fix=FIX,
            error=DataError,
        )
    return {name: headers[file][name] for name, file in names.items()}


def _plain(file: str) -> bool:
    """Whether a name stays inside its folder."""
    return file not in ("", ".", "..") and "\0" not in file and Path(file).name == file
