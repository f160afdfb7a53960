"""Models and checkpoints on disk: folders in the official layout, whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fathom.checkpoint.find import step_folder
from fathom.checkpoint.hf import to_hf
from fathom.checkpoint.hf_config import hf_config
from fathom.checkpoint.inventory import CONFIG, WEIGHTS
from fathom.checkpoint.json_file import write_json
from fathom.checkpoint.manifest import write_manifest
from fathom.checkpoint.names import ROUTING_BIAS, official
from fathom.checkpoint.tensors import write_tensors
from fathom.checkpoint.tokenizer_files import SpecialIds, copy_tokenizer, special_ids
from fathom.checkpoint.training import TrainingState, write_training
from fathom.config.folder import new_folder
from fathom.config.model import ModelConfig

GENERATION = "generation_config.json"


def save_model(
    folder: Path,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    *,
    tokenizer: Path | None = None,
    dtype: torch.dtype | None = None,
    mtp_copies: bool = False,
) -> Path:
    """Write a model that transformers and `load_model` read to `folder`, new or empty; returns it.

    state        our names, on any device
    tokenizer    folder whose tokenizer files come along, and whose special ids config.json repeats
    dtype        of the weights (the routing bias stays float32); None = as they are
    mtp_copies   repeat embedding and head in every MTP layer, as the official checkpoint does
    errors       DiskError if the disk is full or refuses, DataError if `folder` is taken
    """
    with new_folder(folder) as temp:
        _write(temp, state, config, tokenizer, dtype, mtp_copies)
    return Path(folder)


def save_checkpoint(
    run: Path,
    step: int,
    *,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer: Path | None,
    training: TrainingState,
) -> Path:
    """Write RUN/checkpoints/step-NNNNNN, a model folder with `state/` and a manifest inside; returns it.

    Weights keep the precision of `state` (fp32 masters), so that a run resumes bit for bit. A folder of the
    same step that is there already is replaced. Errors as `save_model`; older checkpoints are never touched.
    """
    assert training.step == step, f"training.step={training.step} in the checkpoint of step {step}"
    folder = step_folder(run, step)
    with new_folder(folder, replace=True) as temp:
        _write(temp, state, config, tokenizer, None, False)
        write_training(temp, training)
        write_manifest(temp)
    return folder


def _write(
    folder: Path,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer: Path | None,
    dtype: torch.dtype | None,
    mtp_copies: bool,
) -> None:
    """Fill `folder` with a model."""
    tensors = dict(to_hf(state, config, mtp_copies=mtp_copies))
    biases = {name for name, place in official(config).items() if place.ours.endswith(ROUTING_BIAS)}
    dtypes = {
        name: torch.float32 if name in biases else dtype or tensor.dtype for name, tensor in tensors.items()
    }
    write_tensors(folder / WEIGHTS, tensors, dtypes)
    ids = SpecialIds() if tokenizer is None else special_ids(tokenizer)
    if tokenizer is not None:
        copy_tokenizer(tokenizer, folder)
    stored = str(dtype or state["embed.weight"].dtype).removeprefix("torch.")
    write_json(folder / CONFIG, hf_config(config, bos=ids.bos, eos=ids.eos, pad=ids.pad, dtype=stored))
    named = {"bos_token_id": ids.bos, "eos_token_id": ids.eos, "pad_token_id": ids.pad}
    write_json(folder / GENERATION, {key: value for key, value in named.items() if value is not None})
