"""What a forward pass leaves in memory for the backward pass, counted from the tensors themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Held(NamedTuple):
    """One piece of memory."""

    where: str  # the module that was running when it was first saved, by its name; "" = the model itself
    dtype: torch.dtype
    shape: torch.Size  # of the tensor that was saved first
    nbytes: int  # of the whole storage, even if a part of it was saved


def held(model: nn.Module, forward: Callable[[], Any]) -> list[Held]:
    """What the graph of `forward()` keeps until its backward pass, each storage once, in order.

    Parameters, their gradients and buffers of `model` are there anyway and are left out. So is what is no
    tensor of the graph: FP8 copies of weights.
    """
    found: dict[int, Held] = {}
    alive: list[Tensor] = []  # an address is nobody else's as long as somebody holds it
    anyway = {t.untyped_storage().data_ptr() for t in _state(model)}

    with _where(model) as stack:

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in anyway and storage.nbytes():
                piece = Held(stack[-1], tensor.dtype, tensor.shape, storage.nbytes())
                found.setdefault(storage.data_ptr(), piece)
                alive.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            forward()
    return list(found.values())


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of all storages that `tensors` lie in, each once."""
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}.values())


def _state(model: nn.Module) -> Iterator[Tensor]:
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from model.buffers()


@contextmanager
def _where(model: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running, innermost last."""
    stack = [""]

    def leave(*_: Any) -> None:
        stack.pop()

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        hooks.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield stack
    finally:
        for hook in hooks:
            hook.remove()
