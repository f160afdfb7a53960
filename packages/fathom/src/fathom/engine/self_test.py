"""Whether the promise of exactness holds on this machine: tried with the engine's own weights at its start.

Two tests. Every shape of product that was packed is tried with many numbers of rows. Then a few positions go
through the whole trunk alone, and again among more and more rows of another text, in other pages, in chunks
cut elsewhere: their logits must have the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fathom.engine.forward import Pool, logits, trunk
from fathom.engine.layout import in_row_order, lay_out
from fathom.engine.request import SamplingParams
from fathom.engine.scheduler import Work
from fathom.engine.sequence import Sequence
from fathom.engine.weights import Weights
from fathom.ops.products import Product, Products, row_exact

ROW_COUNTS = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 32, 48, 64, 65, 100, 128)  # of products
COMPANY = (1, 3, 8, 21)  # rows of another text
DECODED = 3  # positions behind the prompt
ROWS_OF_A_WEIGHT = 4096  # that are tried: a head of 129,280 rows takes long and is tried whole in the trunk


class Recorded:
    """The products that an engine packs, noting which shapes there are."""

    def __init__(self, products: Products) -> None:
        self._products, self.name = products, products.name
        self.shapes: set[tuple[int, int, torch.dtype]] = set()

    def pack(self, weight_YX: Tensor) -> Product:
        """As the products that are noted."""
        Y, X = weight_YX.shape
        self.shapes.add((Y, X, weight_YX.dtype))
        return self._products.pack(weight_YX)


def find_inexact(weights: Weights, products: Recorded, page_size: int) -> tuple[str, ...]:
    """What depends on company here; () = nothing was found."""
    found = []
    generator = torch.Generator().manual_seed(1)
    for Y, X, dtype in sorted(products.shapes, key=str):
        weight_YX = torch.randn(min(Y, ROWS_OF_A_WEIGHT), X, generator=generator)
        if not row_exact(products, weight_YX.to(weights.device, dtype), ROW_COUNTS):
            found.append(f"{products.name} of {X} by {Y}")
    if not _trunk_is_exact(weights, page_size):
        found.append("the network as a whole")
    return tuple(found)


def _trunk_is_exact(weights: Weights, page_size: int) -> bool:
    """Whether one text has the same logits beside others of several lengths as it has alone."""
    alone = torch.cat(list(_text(weights, page_size, 0)))
    return all(torch.equal(torch.cat(list(_text(weights, page_size, n))), alone) for n in COMPANY)


def _text(weights: Weights, page_size: int, company: int) -> Iterator[Tensor]:
    """Logits of a text of a page and a little more, behind `company` rows of another in every pass."""
    config = weights.config
    P = min(page_size + DECODED, config.max_positions - DECODED)
    pages = -(-(P + DECODED) // page_size)
    pool = Pool(config, 3 * pages + 8, page_size, weights.embed_VD, draft=False)
    text = _sequence(weights, P, DECODED, range(pages), 5)
    n = min(company, config.max_positions - DECODED)
    held = -(-(n + DECODED) // page_size)
    if company:
        text.pages = list(range(held + pages, held, -1))
    other = _sequence(weights, n, DECODED, range(held), 6) if company else None
    cut = page_size if company % 2 or page_size >= P else P
    steps = [("prefill", 0, min(cut, P)), ("prefill", cut, P)]
    steps += [("decode", p, p + 1) for p in range(P, P + DECODED)]
    for kind, start, stop in steps:
        if start >= stop:
            continue
        works = [Work(text, start, stop - start, kind)]
        if other is not None:  # written anew every time: it is only there
            works.insert(0, Work(other, 0, n, "prefill" if kind == "prefill" else "replay"))
        yield _last_rows(weights, works, pool, page_size, stop - start)


def _sequence(weights: Weights, prompt: int, more: int, pages: range, seed: int) -> Sequence:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(weights.config.vocab_size, (prompt + more,), generator=generator).tolist()
    made = Sequence(0, 0, "", tuple(tokens[:prompt]), SamplingParams(), prompt + more)
    made.output, made.pages = tokens[prompt:], list(pages)
    return made


def _last_rows(weights: Weights, works: list[Work], pool: Pool, page_size: int, count: int) -> Tensor:
    ordered = in_row_order(works)
    rows = lay_out(ordered, page_size, weights.turn)
    tokens = [t for w in ordered for t in w.sequence.tokens(w.start, w.start + w.count)]
    h_RD = trunk(weights, torch.tensor(tokens, device=weights.device), rows, pool)
    return logits(weights, h_RD)[-count:]
