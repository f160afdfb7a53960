"""`fathom demo`: watch a small DeepSeek-V3 learn, then talk to it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fathom.config.errors import need
from fathom.ops.allocator import keep_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fathom.evals.questions import Answered
    from fathom.reproduce.demo import Figures

IN_FULL = 5  # questions printed with their answers


def demo(
    minutes: Annotated[float, typer.Option("--minutes", help="Time for everything but talking.")] = 6.0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default runs/demo-MINUTESmin.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of data, weights and order.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The closing figures as the last line.")] = False,
    talk: Annotated[bool, typer.Option(help="Open the chat at the end, at a terminal.")] = True,
) -> None:
    """Train a small DeepSeek-V3 from nothing, ask it questions, and talk to it.

    \b
      fathom demo --minutes 6
      fathom demo --minutes 1 --json --no-talk

    It has latent attention, routed experts balanced by a bias, and multi-token prediction; it reads a world
    of little stories. Run again with the same --out, it goes on where it was stopped.
    """
    need(0 < minutes < 1e6, f"--minutes {minutes:g} is not above 0", fix="give 6, say")
    need(seed >= 0, f"--seed {seed} is below 0", fix="give 0 or more")
    keep_memory()
    from fathom.reproduce.demo import run

    folder = out or Path("runs") / f"demo-{minutes:g}min"
    figures, answers = run(minutes, folder, seed=seed)
    show(figures, answers, to_stderr=as_json)
    if as_json:
        print(json.dumps(asdict(figures)))
    elif talk and sys.stdin.isatty() and sys.stdout.isatty():
        from fathom.cli.chat import chat

        chat(model=Path(figures.model))


def show(figures: Figures, answers: Sequence[Answered], *, to_stderr: bool) -> None:
    """The closing page: figures, and five questions in full."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    console = Console(stderr=to_stderr, highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    f = figures
    ratio = f.mha_cache_bytes_per_token / f.cache_bytes_per_token
    for name, value in (
        ("tokens seen", f"{f.tokens_seen:,} in {f.steps:,} steps"),
        ("held-out bits per byte", f"{f.bits_per_byte_before:.3f} before, {f.bits_per_byte_after:.3f} after"),
        ("balance of experts", f"MaxVio {f.max_violation:.2f} (0 = every expert gets its share)"),
        ("parameters", f"{f.parameters_total:,} total, {f.parameters_active:,} active per token"),
        (
            "cache",
            f"{f.cache_bytes_per_token:,} bytes per token; plain multi-head attention needs "
            f"{f.mha_cache_bytes_per_token:,} ({ratio:.1f} times as much)",
        ),
        ("held-out questions", f"{f.right} of {f.questions} right ({f.share_right:.0%})"),
        (
            "MTP drafts",
            f"{f.mtp_acceptance:.0%} accepted while answering: "
            f"{f.tokens_per_trunk_pass:.2f} tokens per trunk pass",
        ),
    ):
        table.add_row(name, value)
    console.print(Panel(table, title=f"{f.seconds / 60:.1f} minutes later", title_align="left", expand=False))
    for answer in answers[:IN_FULL]:
        question = answer.prompt.messages[-1]["content"]
        mark = "right" if answer.right else f"wrong: {answer.prompt.answer}"
        console.print(f"\n{question}", markup=False, style="dim")
        console.print(f"-> {answer.reply}   [{mark}]", markup=False, style="green" if answer.right else "red")
    console.print(f"\nSee how it learned: {f.report}", markup=False, soft_wrap=True)
    console.print(f"Talk to it: {program()} chat --model {f.model}", markup=False)
    console.print("It knows one little world; try: Tell me a story about Mia and a kite.", markup=False)


def program() -> str:
    """How this shell can call fathom: by name where it is on the path, else by its place."""
    beside = Path(sys.executable).with_name("fathom")
    if shutil.which("fathom") or not beside.exists():
        return "fathom"
    return os.path.relpath(beside)
