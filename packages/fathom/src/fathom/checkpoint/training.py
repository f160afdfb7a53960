"""The part of a checkpoint that only its own run needs: RUN/checkpoints/step-N/state/.

trainer.json holds the numbers, optimizer.safetensors and ema.safetensors the tensors, in our names.
Nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fathom.checkpoint.json_file import read_json, write_json
from fathom.checkpoint.names import shapes
from fathom.checkpoint.tensors import read_header, read_tensors, write_tensors
from fathom.config.errors import DataError, need
from fathom.config.model import ModelConfig

STATE = "state"
TRAINER = "trainer.json"
OPTIMIZER = "optimizer.safetensors"
EMA = "ema.safetensors"
FIX = "use another checkpoint, or start the run anew"
# JSON of trainer.json; `rng` and `extra` are optional because a run may have none.
KINDS: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "tokens": int,
    "elapsed_s": (int, float),
    "loader": dict,
    "recipe": dict,
    "rng": dict,
    "extra": dict,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingState:
    """What a run continues from, beside the weights."""

    step: int  # optimizer steps done
    tokens: int  # tokens seen
    elapsed_s: float  # time trained, over all the processes the run had
    loader: Mapping[str, Any]  # Loader.state_dict()
    recipe: Mapping[str, Any]
    optimizer: Mapping[str, Tensor]  # "exp_avg.<name>", "exp_avg_sq.<name>" with our tensor names
    ema: Mapping[str, Tensor] | None = None  # our names; None = the run keeps no average
    rng: Mapping[str, Any] = field(default_factory=dict)  # torch.Generator states, or what JSON can hold
    extra: Mapping[str, Any] = field(
        default_factory=dict
    )  # further JSON values: optimizer counters and so on


def write_training(folder: Path, training: TrainingState) -> None:
    """Write `folder`/state."""
    state = folder / STATE
    state.mkdir()
    write_tensors(state / OPTIMIZER, training.optimizer)
    if training.ema is not None:
        write_tensors(state / EMA, training.ema)
    numbers = {key: getattr(training, key) for key in KINDS if key != "rng"}
    rng = {name: _pack(value) for name, value in training.rng.items()}
    write_json(state / TRAINER, {**numbers, "rng": rng, "ema": training.ema is not None})


def check_training(folder: Path, config: ModelConfig) -> dict[str, Any]:
    """The numbers of trainer.json, once all files are known to fit `config`; no tensor is read."""
    path = folder / STATE / TRAINER
    if not (folder / STATE).is_dir():
        raise DataError(f"{folder} has no {STATE}/ to resume from. Fix: {FIX}")
    numbers = read_json(path)
    for key, kind in KINDS.items():
        value = numbers.get(key)
        sound = isinstance(value, kind) and not isinstance(value, bool)
        need(sound, f"{path}: {key}={value!r} is not what a run writes", fix=FIX, error=DataError)
    want = shapes(config)
    _check_tensors(folder / STATE / OPTIMIZER, want, kinds=True)
    if numbers.get("ema"):
        _check_tensors(folder / STATE / EMA, want, kinds=False)
    return numbers


def read_training(folder: Path, config: ModelConfig) -> TrainingState:
    """`folder`/state as it was written. DataError names the file and what is wrong with it."""
    numbers = check_training(folder, config)
    rng = {name: _unpack(value, folder / STATE / TRAINER) for name, value in numbers["rng"].items()}
    return TrainingState(
        **{key: numbers[key] for key in KINDS if key != "rng"},
        rng=rng,
        optimizer=read_tensors(folder / STATE / OPTIMIZER),
        ema=read_tensors(folder / STATE / EMA) if numbers.get("ema") else None,
    )


def _check_tensors(path: Path, want: Mapping[str, tuple[int, ...]], *, kinds: bool) -> None:
    """Tensors named like a weight have its shape; with `kinds`, names begin with one, such as "exp_avg."."""
    for name, stored in read_header(path).items():
        plain = name.partition(".")[2] if kinds else name
        shape = want.get(plain, stored.shape)
        need(
            stored.shape == shape,
            f"{path}: {name} is {list(stored.shape)}, but its weight is {list(shape)}",
            fix=FIX,
            error=DataError,
        )


def _pack(value: Any) -> Any:
    """A generator's state (uint8) as text; other values as they are."""
    if not isinstance(value, Tensor):
        return value
    assert value.dtype == torch.uint8, f"a random state is {value.dtype}, not uint8"
    return {"hex": value.cpu().numpy().tobytes().hex()}


def _unpack(value: Any, path: Path) -> Any:
    if not (isinstance(value, dict) and set(value) == {"hex"}):
        return value
    try:
        return torch.frombuffer(bytearray.fromhex(value["hex"]), dtype=torch.uint8)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: a random state is damaged ({error}). Fix: {FIX}") from error
