"""Ranks as processes: torch.distributed behind `Group`, gloo on the CPU and NCCL on CUDA devices.

Everything but a sum travels as bytes, so every dtype does, float8 among them. Small values travel as JSON.

Messages of one pair of ranks go by channel. Gloo marks them with a tag. NCCL has none, and two ranks that
both send first would wait for each other for ever: there every line, which is a sender, a receiver and a
channel, is a communicator of its own, opened by all in one order (`open_channels`). Such a line carries
messages one way, in order, so no message waits behind one that nobody has asked for.

A gloo rank that waits for one that is gone fails at once, and for one that is silent after `patience_s`.
Under NCCL only the CUDA stream waits; torch's watchdog ends the process after `patience_s`.

Subgroups are made of torch's backends and not by `new_group`, which wants either every rank of the world to
call it or equal histories of all members: it names a group after how many this process has made before.
"""
# ruff: noqa: TID251  this is the one file that may

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import prod
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from fathom.config.errors import need
from fathom.config.parallel import ParallelConfig
from fathom.parallel.group import Done, Handle, Line, RankFailedError, plain_copy


class Backend(Protocol):
    """What torch's ProcessGroup, ProcessGroupGloo and ProcessGroupNCCL have in common and we use."""

    def alltoall_base(self, into: Tensor, x: Tensor, received: list[int], sent: list[int]) -> dist.Work:
        """Rows to and from every rank."""
        ...

    def allreduce(self, tensors: list[Tensor]) -> dist.Work:
        """The sum, in place."""
        ...

    def _allgather_base(self, into: Tensor, x: Tensor) -> dist.Work: ...

    def send(self, tensors: list[Tensor], to: int, tag: int) -> dist.Work:
        """One message."""
        ...

    def recv(self, tensors: list[Tensor], source: int, tag: int) -> dist.Work:
        """One message."""
        ...


class Link(NamedTuple):
    """What all groups of a process have in common."""

    store: Any  # torch's Store, where ranks find each other
    rank: int  # in the world
    size: int  # of the world
    device: torch.device
    backend: str  # gloo or nccl
    patience: timedelta


class Processes:
    """A `Group` whose ranks are processes."""

    def __init__(self, link: Link, name: str, members: Sequence[int], backend: Backend) -> None:
        """`members` by their ranks in the world, ascending; `name` is theirs alone and the same on all."""
        self.link, self.name, self.members, self._backend = link, name, tuple(members), backend
        self.rank, self.size = self.members.index(link.rank), len(self.members)
        self._subgroups: list[Processes | None] = []
        self._lines: dict[Line, Backend] = {}

    def all_to_all(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Handle[Tensor]:
        """As `Group`."""
        assert sum(sent) == len(x) and len(sent) == len(received) == self.size, (
            f"{list(sent)} rows sent of {len(x)}, {list(received)} received, by {self.size} ranks"
        )
        rows = x.detach().contiguous()
        if self.size == 1:
            return Done(rows)
        came = rows.new_empty((sum(received), *rows.shape[1:]))
        into, out = _row_bytes(came), _row_bytes(rows)
        with _answering(self._who):
            work = self._backend.alltoall_base(into, out, list(received), list(sent))
        return _Working(self._who, work, came, kept=(into, out))

    def all_reduce(self, x: Tensor) -> Handle[Tensor]:
        """As `Group`; both backends sum each element in one place and hand the sum round."""
        if self.size == 1 or x.numel() == 0:
            return Done(x)
        own = x.detach()
        dense = own.contiguous()
        with _answering(self._who):
            work = self._backend.allreduce([dense])
        return _Working(self._who, work, x, copy=None if dense is own else (own, dense), kept=(dense,))

    def all_gather(self, x: Tensor) -> list[Tensor]:
        """As `Group`."""
        if self.size == 1 or x.numel() == 0:
            return [x.detach().clone() for _ in self.members]
        own = _bytes(x.detach().contiguous())
        came = own.new_empty(self.size * len(own))
        with _answering(self._who):
            work = self._backend._allgather_base(came, own)
        _Working(self._who, work, came, kept=(own,)).wait()
        return [part.view(x.dtype).view(x.shape) for part in came.chunk(self.size)]

    def gather_objects(self, value: Any) -> list[Any]:
        """As `Group`: JSON, padded to the longest."""
        if self.size == 1:
            return [plain_copy(value)]
        text = torch.frombuffer(bytearray(json.dumps(value), "utf-8"), dtype=torch.uint8)
        lengths = [int(n) for n in self.all_gather(torch.tensor([len(text)], device=self.link.device))]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(text)] = text
        came = self.all_gather(padded.to(self.link.device))
        texts = [bytes(part[:n].tolist()) for part, n in zip(came, lengths, strict=True)]
        return [json.loads(text) for text in texts]

    def send(self, x: Tensor, to: int, channel: int) -> Handle[None]:
        """As `Group`."""
        if x.numel() == 0:
            return Done(None)
        out = _bytes(x.detach().contiguous())
        backend, peer = self._line(Line(self.rank, to, channel), to)
        with _answering(self._who):
            work = backend.send([out], peer, channel)
        return _Working(self._who, work, None, kept=(out,))

    def receive(self, into: Tensor, source: int, channel: int) -> Handle[Tensor]:
        """As `Group`."""
        assert into.is_contiguous(), "a message fills a contiguous tensor"
        if into.numel() == 0:
            return Done(into)
        space = _bytes(into.detach())
        backend, peer = self._line(Line(source, self.rank, channel), source)
        with _answering(self._who):
            work = backend.recv([space], peer, channel)
        return _Working(self._who, work, into, kept=(space,))

    def subgroup(self, ranks: Sequence[int]) -> Processes | None:
        """As `Group`, connected at once; costs nothing on a rank that is no part of it."""
        assert list(ranks) == sorted(set(ranks)), f"{list(ranks)} do not ascend"
        name = f"{self.name}.{len(self._subgroups) + 1}"
        if self.rank not in ranks:
            self._subgroups.append(None)
            return None
        opened = Processes(self.link, name, [self.members[r] for r in ranks], self._connect(name, ranks))
        self._subgroups.append(opened)
        opened.all_reduce(torch.zeros(1, device=self.link.device)).wait()  # NCCL connects with the first one
        return opened

    def open_channels(self, lines: Sequence[Line]) -> None:
        """As `Group`: one line after the other, each tried once, so that no later message has to connect."""
        if self.link.backend != "nccl":
            return
        for line in sorted(set(lines) - set(self._lines)):
            ends = sorted((line.source, line.to))
            if self.rank not in ends:
                continue
            self._lines[line] = self._connect(f"{self.name}.{tuple(line)}", ends)
            token = torch.zeros(1, device=self.link.device)
            if self.rank == line.source:
                self.send(token, line.to, line.channel).wait()
            else:
                self.receive(token, line.source, line.channel).wait()

    def drop(self) -> None:
        """Let go of all connections, those of subgroups too. Nothing can be said in this group any more."""
        for subgroup in self._subgroups:
            if subgroup is not None:
                subgroup.drop()
        own = [] if self.name == "world" else [self._backend]  # torch ends the world's itself
        for backend in (*own, *self._lines.values()):
            if self.link.backend == "nccl":
                backend.shutdown()  # type: ignore[attr-defined]  # which NCCL's has
        self._subgroups.clear()
        self._lines.clear()
        del self._backend

    def _connect(self, name: str, ranks: Sequence[int]) -> Backend:
        """These ranks of this group, among themselves."""
        store, me, size = PrefixStore(name, self.link.store), list(ranks).index(self.rank), len(ranks)
        with _answering(self._who):
            if self.link.backend == "gloo":
                return cast(Backend, dist.ProcessGroupGloo(store, me, size, self.link.patience))
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = self.link.patience
            return cast(Backend, dist.ProcessGroupNCCL(store, me, size, options))

    def _line(self, line: Line, peer: int) -> tuple[Backend, int]:
        """The communicator of a line, and the peer's rank in it."""
        if self.link.backend != "nccl":
            return self._backend, peer
        assert line in self._lines, f"{line} was not opened; call open_channels on every rank first"
        return self._lines[line], int(peer > self.rank)

    @property
    def _who(self) -> str:
        return f"rank {self.link.rank} of {self.link.size}"


class _Working:
    """A handle of an operation of torch.distributed; it keeps what that operation reads and writes."""

    def __init__(
        self,
        who: str,
        work: dist.Work | None,
        value: Any,
        *,
        kept: tuple[Tensor, ...],
        copy: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """`copy`: afterwards the second tensor is copied into the first."""
        self._who, self._work, self._value, self._kept, self._copy = who, work, value, kept, copy

    def wait(self) -> Any:
        """The result. Raises RankFailedError."""
        if self._work is not None:
            with _answering(self._who):
                self._work.wait()
            if self._copy is not None:
                self._copy[0].copy_(self._copy[1])
            self._work, self._copy, self._kept = None, None, ()
        return self._value


@contextmanager
def _answering(who: str) -> Iterator[None]:
    """Errors of torch.distributed as one line."""
    try:
        yield
    except RuntimeError as error:
        why = re.sub(r"^\[\S+:\d+\]\s*", "", " ".join(str(error).split()))[:200].rstrip(". ")
        raise RankFailedError(
            f"{who} waited for a rank that is gone or silent ({why}). Fix: look for the rank whose own error "
            "comes first, and start again from the last checkpoint"
        ) from error


def _bytes(x: Tensor) -> Tensor:
    """A contiguous tensor's own bytes, uint8 [n]."""
    return x.view(-1).view(torch.uint8)


def _row_bytes(x: Tensor) -> Tensor:
    """The same, uint8 [rows, bytes of a row]."""
    return _bytes(x).view(len(x), prod(x.shape[1:]) * x.element_size())


def join(
    rank: int,
    size: int,
    device: torch.device,
    *,
    meeting: str = "env://",
    backend: str = "auto",
    patience_s: float = 600.0,
) -> Processes:
    """Meet the other ranks of the run: the group of all.

    device      where this rank's tensors are; with an index where it is CUDA (torchrun's LOCAL_RANK)
    meeting     "env://" (torchrun's MASTER_ADDR and MASTER_PORT), "tcp://host:port" or "file:///path"
    backend     as `parallel.backend`
    patience_s  how long to wait for another rank, here and ever after
    raises      ConfigError, or RankFailedError where not all came
    """
    natural = "nccl" if device.type == "cuda" else "gloo"
    need(
        backend in ("auto", natural),
        f"parallel.backend={backend} does not carry tensors on {device.type}",
        fix="set parallel.backend to auto",
    )
    need(0 <= rank < size, f"rank {rank} is none of {size} ranks", fix="start the ranks with torchrun")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    patience = timedelta(seconds=patience_s)
    try:
        with _answering(f"rank {rank} of {size}"):
            store, _, _ = next(rendezvous(meeting, rank, size, timeout=patience))
            store.set_timeout(patience)
            own = PrefixStore("world", store)
            dist.init_process_group(natural, timeout=patience, store=own, rank=rank, world_size=size)
    except ValueError as error:  # an address without a host, a port or a variable of the environment
        need(False, f"the ranks cannot meet at {meeting} ({error})", fix="start the ranks with torchrun")
    group = dist.group.WORLD
    assert group is not None
    link = Link(store, rank, size, device, natural, patience)
    return Processes(link, "world", range(size), cast(Backend, group))


def leave(world: Processes) -> None:
    """Part from the others, who all do the same.

    Not for a rank that failed: it need only end, and the others notice.
    """
    world.gather_objects(None)  # what is under way arrives first
    world.drop()  # a backend that lives until the interpreter ends may abort the process then
    dist.destroy_process_group()
    gc.collect()


def device_mesh(config: ParallelConfig, device_type: str) -> DeviceMesh:
    """The mesh as torch's own, with dimensions pp, dp and ep, for what else torch offers; after `join`.

    Its ranks are where `fathom.parallel.mesh` has them. It has communicators of its own.
    """
    shape = (config.pp, config.dp, config.ep)
    return init_device_mesh(device_type, shape, mesh_dim_names=("pp", "dp", "ep"))
