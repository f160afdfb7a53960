"""Models and checkpoints from disk: any official folder, or what `save` wrote."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fathom.checkpoint.find import resolve
from fathom.checkpoint.fp8_blocks import read_weight
from fathom.checkpoint.hf import assemble
from fathom.checkpoint.inventory import Inventory, take_inventory
from fathom.checkpoint.manifest import outside_state, verify
from fathom.checkpoint.tensors import Reader
from fathom.checkpoint.training import TrainingState, check_training, read_training
from fathom.config.model import ModelConfig
from fathom.model.transformer import Transformer


def load_model_state(
    path: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The network and its weights in our names, from a run, a checkpoint or any official folder.

    One file or many: all names and shapes are checked first, then (where a run has left hashes) every byte,
    then tensors are read one at a time.
    dtype    of the weights (the routing bias stays float32); None = as stored, bf16 for those in FP8
    errors   DataError in one line: what is damaged, missing or not finite, in which file
    """
    inventory = take_inventory(resolve(path))
    verify(inventory.folder, only=outside_state)
    return inventory.config, _read(inventory, device, dtype)


def load_model(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Transformer:
    """A model ready to talk, in eval mode; arguments and errors as `load_model_state`."""
    config, state = load_model_state(path, device=device, dtype=dtype)
    model = Transformer(config, seed=None)
    model.load_state_dict(state, assign=True)
    return model.to(device).eval()


def load_checkpoint(path: Path | str) -> tuple[ModelConfig, dict[str, Tensor], TrainingState]:
    """Everything `save_checkpoint` was given, bit for bit, on the CPU; `path` as for `load_model_state`.

    Every file's bytes are compared with the manifest first. Errors as `load_model_state`.
    """
    folder = resolve(path)
    inventory = take_inventory(folder)
    check_training(folder, inventory.config)
    verify(folder)
    return inventory.config, _read(inventory, "cpu", None), read_training(folder, inventory.config)


def _read(inventory: Inventory, device: torch.device | str, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The weights in our names."""
    with Reader(inventory.stored) as reader:

        def read(name: str) -> Tensor:
            return read_weight(reader, inventory.stored, name, dtype)

        return assemble(read, inventory.config, dtype=dtype, device=device)
