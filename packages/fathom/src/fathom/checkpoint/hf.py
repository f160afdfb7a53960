"""Our state of a model <-> the tensors of an official checkpoint, one per expert (report section 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from fathom.checkpoint.hf_config import hf_config as hf_config
from fathom.checkpoint.hf_config import model_config as model_config
from fathom.checkpoint.names import ROUTING_BIAS, Place, copies, official, rows, shapes
from fathom.config.errors import DataError, plain
from fathom.config.model import ModelConfig

FIX = "use the config.json that was saved with these weights"
SHOWN = 3  # names in a message; the rest is counted


def to_hf(
    state: Mapping[str, Tensor], config: ModelConfig, *, mtp_copies: bool = False
) -> Iterator[tuple[str, Tensor]]:
    """Official (name, tensor) pairs of our `state`; every tensor is a view, nothing is copied.

    mtp_copies   with the embedding and head that the official checkpoint repeats in every MTP layer
    """
    want, have = shapes(config), {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert have == want, f"state and config differ in {sorted(set(have.items()) ^ set(want.items()))[:SHOWN]}"
    for name, place in official(config, mtp_copies=mtp_copies).items():
        whole = state[place.ours]
        yield name, whole if place.expert is None else whole[place.expert]


def from_hf(
    tensors: Mapping[str, Tensor], config: ModelConfig, *, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Our state from official tensors, in memory of its own; the MTP layers' copies are not used.

    dtype    of the result (the routing bias stays float32); None = as stored
    errors   DataError that names tensors which are missing, unknown or of another shape
    """
    check_shapes(
        {name: tuple(tensor.shape) for name, tensor in tensors.items()}, config, lambda name: "the weights"
    )
    return assemble(tensors.__getitem__, config, dtype=dtype)


def assemble(
    read: Callable[[str], Tensor],
    config: ModelConfig,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> dict[str, Tensor]:
    """Our state from official tensors that `read` brings one at a time; one is held beside the result."""
    state = {}
    for row in rows(config):
        wanted = torch.float32 if row.ours.endswith(ROUTING_BIAS) else dtype
        first = read(row.official.format(0))
        whole = torch.empty(
            row.shape, dtype=wanted or first.dtype, device=first.device if device is None else device
        )
        for e, part in enumerate(whole if row.stacked else [whole]):
            part.copy_(read(row.official.format(e)) if e else first)
        state[row.ours] = whole
    return state


def check_shapes(
    found: Mapping[str, tuple[int, ...]], config: ModelConfig, where: Callable[[str], object]
) -> None:
    """DataError unless `found` (official name -> shape) is what `config` describes, with or without copies.

    where   the file that holds a tensor, for messages
    """
    blocks = config.num_layers + config.mtp.depth
    experts = config.moe.num_experts if config.is_moe(blocks - 1) else 0
    if max(blocks, experts) > len(found):  # a damaged config.json may ask for more than can be listed
        asked = f"{blocks} layers and {experts} experts"
        raise DataError(f"{where('')} holds {len(found)} tensors, too few for {asked}. Fix: {FIX}")
    want = official(config)
    optional = copies(config)
    missing = [name for name in want if name not in found]
    if missing:
        raise DataError(f"{where('')} lacks {_listed(missing)}. Fix: {FIX}, or copy the missing files")
    extra = [name for name in found if name not in want and name not in optional]
    if extra:
        raise DataError(
            f"{where(extra[0])} holds {_listed(extra)}, which config.json does not describe. Fix: {FIX}"
        )
    for name, shape in found.items():
        place: Place = want.get(name) or optional[name]
        if shape != place.shape:
            raise DataError(
                f"{where(name)}: {name} is {list(shape)}, config.json says {list(place.shape)}. Fix: {FIX}"
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(map(plain, names[:SHOWN]))}{more}"
