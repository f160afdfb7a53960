"""`fathom sft`: fine-tune a model on conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fathom.cli.train import Out, Quiet, Resume, Settings, resume_wanted


def sft(
    recipe: Annotated[str, typer.Argument(help="A recipe; the network is that of --model.")],
    out: Out,
    model: Annotated[Path, typer.Option("--model", help="A run or checkpoint to start from.")],
    settings: Settings = None,
    resume: Resume = "none",
    quiet: Quiet = False,
) -> None:
    """Fine-tune on conversations: smallworld's chats, or your .jsonl of {"messages": [...]}.

    \b
      fathom sft sft --model runs/tiny --out runs/tiny-sft
      fathom sft sft data.sources=chats.jsonl train.minutes=5 --model runs/mine --out runs/mine-sft

    The loss counts on the assistant's words only; conversations packed into a row do not see each other.
    """
    from fathom.config.load import load_recipe

    loaded = load_recipe(recipe, settings or [])
    going_on = resume_wanted(resume)
    from fathom.posttrain.sft import start_sft

    start_sft(loaded.recipe, model, out, resume=going_on, quiet=quiet).train()
