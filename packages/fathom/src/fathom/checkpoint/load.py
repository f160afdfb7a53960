"""Models and checkpoints from disk: any official folder, or what `save` wrote."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fathom.checkpoint.find import resolve
from fathom.checkpoint.hf import assemble
from fathom.checkpoint.inventory import take_inventory
from fathom.checkpoint.tensors import Reader
from fathom.checkpoint.training import TrainingState, read_training
from fathom.config.model import ModelConfig
from fathom.model.transformer import Transformer


def load_model_state(
    path: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The network and its weights in our names, from a run, a checkpoint or any official folder.

    One file or many: all names and shapes are checked first, then tensors are read one at a time.
    dtype    of the weights (the routing bias stays float32); None = as stored
    errors   DataError in one line: what is damaged or missing, in which file
    """
    inventory = take_inventory(resolve(path))
    with Reader(inventory.files) as reader:
        return inventory.config, assemble(reader.read, inventory.config, dtype=dtype, device=device)


def load_model(
    path: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Transformer:
    """A model ready to talk, in eval mode; arguments and errors as `load_model_state`."""
    config, state = load_model_state(path, device=device, dtype=dtype)
    model = Transformer(config, seed=None)
    model.load_state_dict(state, assign=True)
    return model.to(device).eval()


def load_checkpoint(path: Path | str) -> tuple[ModelConfig, dict[str, Tensor], TrainingState]:
    """Everything `save_checkpoint` was given, bit for bit, on the CPU; `path` as for `load_model_state`."""
    folder = resolve(path)
    config, state = load_model_state(folder)
    return config, state, read_training(folder, config)
