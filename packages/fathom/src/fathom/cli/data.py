"""`fathom data`: build a corpus, and look at what training will see of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.text import Text

    from fathom.data.tokenizer import Tokenizer

app = typer.Typer(no_args_is_help=True, help="Corpora: build, preview.")

COLOURS = ("cyan", "magenta", "yellow", "blue")  # neighbouring documents of a row differ
TARGET, CONTEXT = "green", "bright_black"


@app.command()
def build(
    recipe: Annotated[str, typer.Argument(help="A packaged recipe's name, or the path of a .toml file.")],
    out: Annotated[Path, typer.Option(help="The new folder of the corpus.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings on top, such as data.workers=4.")
    ] = None,
) -> None:
    """Tokenise the sources of a recipe into a corpus, and print what is in it.

    \b
      fathom data build own-text data.sources=book.txt --out corpora/book
      fathom train own-text data.corpus=corpora/book --out runs/book
    """
    from rich.console import Console

    from fathom.config.load import load_recipe
    from fathom.data.build import build_corpus

    loaded = load_recipe(recipe, overrides or ()).recipe
    given = loaded.model.vocab_size if loaded.data.tokenizer else None  # a given tokenizer must fit the model
    report = build_corpus(loaded.data, out, vocab_size=given)
    Console().print(report.table())


@app.command()
def preview(
    corpus: Annotated[Path, typer.Argument(help="A folder made by `fathom data build`.")],
    rows: Annotated[int, typer.Option(min=1, help="How many to show.")] = 3,
    seq_len: Annotated[int, typer.Option(min=1, help="Tokens in a row.")] = 128,
    held_out: Annotated[bool, typer.Option("--held-out", help="What is kept from training.")] = False,
    chats: Annotated[bool, typer.Option("--chats", help="smallworld's conversations instead.")] = False,
    packing: Annotated[str, typer.Option(help="best_fit or stream.")] = "best_fit",
    seed: Annotated[int, typer.Option(min=0, help="Of the shuffling.")] = 0,
) -> None:
    """Show rows as training sees them: a colour for each document and a bar between them.

    Of chats it shows in green, and between ⟦ ⟧, what the loss counts.
    """
    from rich.console import Console

    from fathom.config.errors import need
    from fathom.data.tokenizer import Tokenizer

    need(packing in ("best_fit", "stream"), f"--packing {packing} is not known", fix="use best_fit or stream")
    console = Console()
    tokenizer = Tokenizer.load(corpus)
    if chats:
        shown = _chat_rows(tokenizer, seed, rows, held_out=held_out)
    else:
        split = "held_out" if held_out else "train"
        shown = _text_rows(tokenizer, corpus, split, seq_len, rows, packing, seed)
    for number, text in enumerate(shown):
        console.rule(f"row {number}")
        console.print(text, soft_wrap=True)


def _text_rows(
    tokenizer: Tokenizer, corpus: Path, split: str, seq_len: int, rows: int, packing: str, seed: int
) -> Iterable[Text]:
    from itertools import groupby, islice

    from rich.text import Text

    from fathom.data.loader import Loader

    loader = Loader(corpus, split=split, seq_len=seq_len, seed=seed, packing=packing)
    drawn = loader.epoch(1) if split == "held_out" else (loader.next(1) for _ in range(rows))
    for batch in islice(drawn, rows):
        text = Text()
        pairs = zip(batch.segment_BT1[0].tolist(), batch.token_BT1[0].tolist(), strict=True)
        for segment, run in groupby(pairs, key=lambda pair: pair[0]):
            ids = [token for _, token in run]
            text.append("│" if segment > 0 else "")
            if segment < 0:
                text.append(f"│ {len(ids)} tokens of padding", CONTEXT)
            else:
                text.append(tokenizer.decode(ids, specials=True), COLOURS[segment % len(COLOURS)])
        yield text


def _chat_rows(tokenizer: Tokenizer, seed: int, rows: int, *, held_out: bool) -> Iterable[Text]:
    from itertools import groupby

    from rich.text import Text

    from fathom.data import smallworld
    from fathom.data.chat import encode_chat

    for messages in smallworld.chats(seed, rows, held_out=held_out):
        ids, is_target = encode_chat(tokenizer, messages)
        text = Text()
        for target, run in groupby(zip(is_target, ids, strict=True), key=lambda pair: pair[0]):
            piece = tokenizer.decode([token for _, token in run], specials=True)
            text.append(f"⟦{piece}⟧" if target else piece, TARGET if target else CONTEXT)
        yield text
