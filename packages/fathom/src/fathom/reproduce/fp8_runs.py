"""Which runs tell how far FP8 is from bf16, and what each of them is measured against.

Every seed is trained in bf16 and in FP8 (report section 3.3). Two more belong to the first seed. One is bf16
again with its micro-batches cut otherwise: sums are made in another order, and bf16 gradients rounded once
more. It shows how far apart two runs are that should be equal. The other is FP8 with the gradients of
activations scaled by blocks of 128 x 128 instead of tiles of 1 x 128, which made the report's run diverge
(appendix B.2).
"""

from __future__ import annotations

from fathom.config.load import Loaded, load_recipe

SEEDS = (0, 1, 2)
BF16, FP8 = ("train.precision=bf16",), ("train.precision=fp8",)
BLOCKS = (*FP8, "train.fp8.gradients=blocks")
QUICK = ("train.tokens=60000",)
REFERENCE, NOISE, CONTROL = "bf16-0", "bf16-0-cut", "fp8-0-blocks"  # runs of the first seed


def planned(quick: bool) -> dict[str, Loaded]:
    """The runs by the names of their folders, in the order in which they begin: the slower one first."""
    own = QUICK if quick else ()
    rows = load_recipe("fp8", own).recipe.train.batch_size
    runs: dict[str, tuple[str, ...]] = {}
    for seed in seeds_of(quick):
        runs[f"fp8-{seed}"] = (*FP8, f"train.seed={seed}")
        runs[f"bf16-{seed}"] = (*BF16, f"train.seed={seed}")
        if seed == SEEDS[0]:
            runs[CONTROL] = (*BLOCKS, f"train.seed={seed}")
            runs[NOISE] = (*BF16, f"train.seed={seed}", f"train.micro_batch={rows // 2}")
    return {name: load_recipe("fp8", [*own, *settings]) for name, settings in runs.items()}


def seeds_of(quick: bool) -> tuple[int, ...]:
    """All, or the first."""
    return SEEDS[:1] if quick else SEEDS


def references(quick: bool) -> dict[str, str]:
    """Every run that is measured, and the one it is measured against."""
    against = {f"fp8-{seed}": f"bf16-{seed}" for seed in seeds_of(quick)}
    return against | {NOISE: REFERENCE, CONTROL: REFERENCE}


def kind(name: str) -> str:
    """bf16, fp8, noise or control."""
    return {NOISE: "noise", CONTROL: "control"}.get(name, name.partition("-")[0])
