"""`fathom sft`: fine-tune a model on conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fathom.cli.dry_run import DryRun, Json, dry_run
from fathom.cli.train import Out, Quiet, Resume, Settings, json_wanted, resume_wanted
from fathom.ops.allocator import keep_memory


def sft(
    recipe: Annotated[str, typer.Argument(help="A recipe; the network is that of --model.")],
    out: Out,
    model: Annotated[Path, typer.Option("--model", help="A run or checkpoint to start from.")],
    settings: Settings = None,
    resume: Resume = "none",
    quiet: Quiet = False,
    only_say: DryRun = False,
    as_json: Json = False,
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
    json_wanted(as_json, only_say)
    if only_say:
        from fathom.checkpoint.find import resolve
        from fathom.checkpoint.inventory import take_inventory

        network = take_inventory(resolve(model)).config
        dry_run(network, loaded.recipe.train, out, title=f"fathom sft {recipe}", as_json=as_json)
        return
    keep_memory()
    from fathom.posttrain.sft import start_sft

    start_sft(loaded.recipe, model, out, resume=going_on, quiet=quiet, origin=loaded.origin).train()
