"""Supervised fine-tuning: packed conversations that do not see each other, loss on replies (report 5.1)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fathom.checkpoint.find import resolve
from fathom.checkpoint.load import load_model_state
from fathom.checkpoint.tokenizer_files import check_tokenizer
from fathom.config.dump import to_dict, to_toml
from fathom.config.errors import DataError, need
from fathom.config.parallel import check_alone
from fathom.config.recipe import Recipe
from fathom.data.batch import Batch, pack_chats
from fathom.data.chat import encode_chat
from fathom.data.conversations import Messages, open_conversations
from fathom.data.tokenizer import Tokenizer
from fathom.model.transformer import Transformer
from fathom.train.loop import Run, Trainer
from fathom.train.machine import survey
from fathom.train.precision import kernels_for, with_products
from fathom.train.start import check_out, check_same_model, saved_precision


class ChatRows:
    """Rows of packed conversations, drawn without end and shuffled anew each epoch."""

    def __init__(self, packed: Batch, seed: int) -> None:
        self.packed, self.seed, self.drawn = packed, seed, 0
        self._order: tuple[int, np.ndarray] | None = None  # of the epoch drawn last

    def next(self, rows: int) -> Batch:
        """The next `rows` rows of the seeded order."""
        places = range(self.drawn, self.drawn + rows)
        self.drawn += rows
        return self.packed.take(torch.tensor([self._row(place) for place in places]))

    def _row(self, place: int) -> int:
        epoch, within = divmod(place, len(self.packed))
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.packed))
        return int(self._order[1][within])

    def state_dict(self) -> dict[str, Any]:
        """How many rows were drawn, and of what, so that other data is noticed."""
        digest = zlib.crc32(self.packed.token_BT1.numpy().tobytes())
        return {"drawn": self.drawn, "rows": len(self.packed), "crc32": digest, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; DataError when it is of other conversations or another order."""
        need(
            {**state, "drawn": self.drawn} == self.state_dict(),
            "the saved run read other conversations, or in another order",
            fix="resume with the same data.sources, train.seq_len and train.seed",
            error=DataError,
        )
        self.drawn = state["drawn"]


def pack_conversations(recipe: Recipe, tokenizer: Tokenizer) -> Batch:
    """All conversations of `recipe.data.sources` as packed rows."""
    chats = [
        _encode(tokenizer, where, messages)
        for name in recipe.data.sources
        for where, messages in open_conversations(name, recipe.data)
    ]
    return pack_chats(chats, recipe.train.seq_len, seed=recipe.train.seed, pad=tokenizer.pad)


def _encode(tokenizer: Tokenizer, where: str, messages: Messages) -> tuple[list[int], list[bool]]:
    try:
        return encode_chat(tokenizer, messages)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def start_sft(
    recipe: Recipe,
    base: Path,
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    origin: Mapping[str, str] | None = None,
) -> Trainer:
    """Everything of `fathom sft` up to the first step: the model in `base`, the recipe's conversations.

    The recipe's [model] is not used: the network is the base's. Documents are always masked.
    origin   where each setting came from, for the record
    errors   ConfigError, DataError and DiskError in one line, before anything is overwritten
    """
    check_alone(recipe.parallel, "leave parallel.* away: fine-tuning is not shared by ranks yet")
    saved = check_out(out, resume)
    folder = resolve(base)
    tokenizer = Tokenizer.load(folder)
    config, state = load_model_state(folder, dtype=torch.float32)  # masters are fp32, whatever the base was
    check_tokenizer(tokenizer.size, config)
    most = config.max_positions
    need(
        recipe.train.seq_len <= most,
        f"train.seq_len={recipe.train.seq_len} is above the {most} positions of {base}",
        fix=f"set it to {most} or less",
    )
    data = ChatRows(pack_conversations(recipe, tokenizer), recipe.train.seed)
    machine = survey(recipe.train.device, saved_precision(recipe.train.precision, saved))
    run = Run(
        folder=out,
        recipe=to_dict(recipe),
        as_toml=to_toml(recipe),
        tokenizer=folder,
        title="sft",
        quiet=quiet,
        origin=origin or {},
        notes={"base": str(base), "precision": machine.precision},
    )
    kernels = kernels_for(recipe.train, machine)
    machine = with_products(machine, kernels)
    model = Transformer(config, kernels=kernels, seed=None)
    model.load_state_dict(state, assign=True)
    trainer = Trainer(model, replace(recipe.train, mask_documents=True), data, machine, run)
    if saved is not None:
        check_same_model(saved.config, config, out)
        trainer.resume(saved)
    return trainer
