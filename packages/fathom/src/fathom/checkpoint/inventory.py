"""What a folder of weights holds, and whether that is all it promises; no weight is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from fathom.checkpoint.hf import check_shapes
from fathom.checkpoint.hf_config import model_config
from fathom.checkpoint.json_file import read_json
from fathom.checkpoint.tensors import Stored, read_header
from fathom.config.errors import DataError, need
from fathom.config.model import ModelConfig

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
LAYER = re.compile(r"model\.layers\.(\d{1,9})\.")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
FIX = "copy the missing files, or use another checkpoint"


@dataclass(frozen=True, slots=True)
class Inventory:
    """A complete model: its network, and the file that holds each official tensor."""

    folder: Path
    config: ModelConfig
    files: dict[str, Path]


def take_inventory(folder: Path) -> Inventory:
    """Check that `folder` is a whole model: config, files, every tensor with its shape, by the headers alone.

    MTP modules that the config names but no file holds (other programs drop them when they save) are taken
    out of the config: `mtp.depth` is then 0.
    errors   DataError that names the file, the tensor and what is wrong with it
    """
    config = read_config(folder)
    stored, files = _stored(folder)
    _refuse_fp8(stored, files)
    layers = (LAYER.match(name) for name in stored)
    if not any(layer and int(layer[1]) >= config.num_layers for layer in layers):
        config = replace(config, mtp=replace(config.mtp, depth=0))
    found = {name: tensor.shape for name, tensor in stored.items()}
    check_shapes(found, config, lambda name: files.get(name, folder))
    return Inventory(folder, config, files)


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


def _stored(folder: Path) -> tuple[dict[str, Stored], dict[str, Path]]:
    """Every tensor's header entry, and its file; one file, or many with an index."""
    if (folder / WEIGHTS).is_file():
        stored = read_header(folder / WEIGHTS)
        return stored, dict.fromkeys(stored, folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        refuse_pickles(folder)
        raise DataError(f"{folder} has neither {WEIGHTS} nor {INDEX}. Fix: {FIX}")
    return _indexed(folder)


def _indexed(folder: Path) -> tuple[dict[str, Stored], dict[str, Path]]:
    path = folder / INDEX
    names = read_json(path).get("weight_map")
    sound = isinstance(names, dict) and all(isinstance(file, str) and _plain(file) for file in names.values())
    need(sound, f"{path} has no weight_map from tensors to files beside it", fix=FIX, error=DataError)
    assert isinstance(names, dict)
    headers = {file: read_header(folder / file) for file in sorted(set(names.values()))}
    files, stored = {}, {}
    for name, file in names.items():
        need(
            name in headers[file],
            f"{folder / file} lacks {name}, which {INDEX} promises",
            fix=FIX,
            error=DataError,
        )
        files[name], stored[name] = folder / file, headers[file][name]
    return stored, files


def _plain(file: str) -> bool:
    """Whether a name stays inside its folder."""
    return file not in ("", ".", "..") and "\0" not in file and Path(file).name == file


def _refuse_fp8(stored: dict[str, Stored], files: dict[str, Path]) -> None:
    for name, tensor in stored.items():
        need(
            not (name.endswith("_scale_inv") or tensor.dtype.startswith("F8")),
            f"{files[name]} holds FP8 weights ({name}), which are not read yet",
            fix="convert them to bf16 first",
            error=DataError,
        )
