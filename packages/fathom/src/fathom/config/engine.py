"""How the inference engine serves: memory, batches, queue, speculation."""

from __future__ import annotations

from dataclasses import dataclass

from fathom.config.setting import check, setting


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Limits and choices of one `fathom.engine.Engine`.

    `device`, `precision` and `page_size` change how sums are rounded, and with that an answer where two
    tokens are all but equally likely. None of the others changes what a request is answered, as long as its
    positions fit the pages.
    """

    device: str = setting("auto", "auto = a GPU if there is one", choices=("auto", "cpu", "cuda"))
    precision: str = setting(
        "auto", "of weights and cache; auto = bf16 where it is fast", choices=("auto", "bf16", "fp32")
    )
    page_size: int = setting(64, "positions in one page of the latent cache", low=1, high=1024)
    cache_gib: float = setting(0.0, "of the latent cache; 0 = a quarter of free memory", low=0.0, high=1e6)
    pages: int = setting(0, "pages of the latent cache; 0 = as many as cache_gib holds", low=0, high=2**31)
    max_running: int = setting(64, "sequences that decode at once", low=1, high=4096)
    max_waiting: int = setting(256, "sequences that may wait; more are refused", low=1, high=1_000_000)
    max_context: int = setting(
        0, "positions of prompt and answer together; 0 = the model's own", low=0, high=2**31
    )
    prefill_tokens: int = setting(512, "prompt tokens of one step, of all prompts", low=1, high=1_000_000)
    prefix_cache: bool = setting(True, "keep pages of earlier prompts and share them between requests")
    speculate: str = setting(
        "auto", "draft with the MTP module; auto = while it pays", choices=("auto", "on", "off")
    )
    draft_tokens: int = setting(1, "tokens drafted at a time; above 1 it is used again", low=1, high=8)
    debug: bool = setting(False, "check every invariant of pages and prefix tree after every step")

    def __post_init__(self) -> None:
        check(self, "engine")
