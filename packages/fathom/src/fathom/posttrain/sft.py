"""Supervised fine-tuning: packed conversations that do not see each other, loss on replies (report 5.1)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fathom.checkpoint.find import resolve
from fathom.checkpoint.folder import disk_errors
from fathom.checkpoint.load import load_checkpoint, load_model_state
from fathom.checkpoint.tokenizer_files import check_tokenizer
from fathom.config.dump import to_dict, to_toml
from fathom.config.errors import ConfigError, DataError, need
from fathom.config.recipe import Recipe
from fathom.data.batch import Batch, pack_chats
from fathom.data.chat import encode_chat
from fathom.data.conversations import open_conversations
from fathom.data.tokenizer import Tokenizer
from fathom.model.transformer import Transformer
from fathom.train.loop import Run, Trainer
from fathom.train.machine import survey
from fathom.train.start import RECIPE, check_out


class ChatRows:
    """Rows of packed conversations, drawn without end and shuffled anew each epoch."""

    def __init__(self, packed: Batch, seed: int) -> None:
        self.packed, self.seed, self.drawn = packed, seed, 0

    def next(self, rows: int) -> Batch:
        """The next `rows` rows of the seeded order."""
        order = [self._row(self.drawn + i) for i in range(rows)]
        self.drawn += rows
        return Batch(
            self.packed.token_BT1[order],
            self.packed.segment_BT1[order],
            self.packed.mask_BT1[order] if self.packed.mask_BT1 is not None else None,
        )

    def _row(self, index: int) -> int:
        epoch, place = divmod(index, len(self.packed))
        return int(np.random.default_rng([self.seed, epoch]).permutation(len(self.packed))[place])

    def state_dict(self) -> dict[str, Any]:
        """How many rows were drawn, and of how many, so that other data is noticed."""
        return {"drawn": self.drawn, "rows": len(self.packed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; DataError when it is of other conversations."""
        need(
            state.get("rows") == len(self.packed),
            f"the saved run read {state.get('rows')} rows of conversations, this one has {len(self.packed)}",
            fix="resume with the same data.sources and train.seq_len",
            error=DataError,
        )
        self.drawn = state["drawn"]


def pack_conversations(recipe: Recipe, tokenizer: Tokenizer) -> Batch:
    """All conversations of `recipe.data.sources` as packed rows."""
    chats = [
        encode_chat(tokenizer, messages)
        for name in recipe.data.sources
        for messages in open_conversations(name, recipe.data)
    ]
    return pack_chats(chats, recipe.train.seq_len, seed=recipe.train.seed, pad=tokenizer.pad)


def start_sft(
    recipe: Recipe, base: Path, out: Path, *, resume: bool = False, quiet: bool = False
) -> Trainer:
    """Everything of `fathom sft` up to the first step: the model in `base`, the recipe's conversations.

    The recipe's [model] is not used: the network is the base's. Documents are always masked.
    errors   ConfigError, DataError and DiskError in one line, before anything is overwritten
    """
    found = check_out(out, resume)
    folder = resolve(base)
    tokenizer = Tokenizer.load(folder)
    config, state = load_model_state(folder)
    check_tokenizer(tokenizer.size, config)
    need(recipe.train.seq_len <= config.max_positions, f"train.seq_len={recipe.train.seq_len} is above the "
         f"{config.max_positions} positions of {base}", fix=f"set it to {config.max_positions} or less",
         error=ConfigError)  # fmt: skip
    data = ChatRows(pack_conversations(recipe, tokenizer), recipe.train.seed)
    machine = survey(recipe.train.device, recipe.train.precision)
    stored = {**to_dict(recipe), "base": str(base)}
    run = Run(folder=out, recipe=stored, tokenizer=folder, title="sft", quiet=quiet)
    model = Transformer(config, seed=None)
    model.load_state_dict(state, assign=True)
    trainer = Trainer(model, replace(recipe.train, mask_documents=True), data, machine, run)
    if found is not None:
        _, state, training = load_checkpoint(found)
        trainer.resume(state, training)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / RECIPE).write_text(to_toml(recipe))
    return trainer
