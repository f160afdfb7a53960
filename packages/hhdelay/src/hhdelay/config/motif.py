"""Who is coupled to whom, how late, how strongly and with which sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hhdelay.config.errors import need
from hhdelay.config.setting import check, setting

KINDS = ("EI", "II", "EE", "links")


@dataclass(frozen=True, kw_only=True, slots=True)
class Motif:
    """Two populations of half the neurons each (EI, II, EE), or single links.

    EI      population 0 excites 1 after delay_e_ms, 1 inhibits 0 after delay_ms
    II, EE  both inhibit, both excite, each after delay_ms
    links   link k runs from neuron link_from[k] to link_to[k]; link_sign[k] = 1 excites, -1 inhibits.
            link_delay_ms and link_g_mS_cm2 may be empty: then every link takes delay_ms, g_mS_cm2.

    A population feels g_mS_cm2 times the mean of s over the other one. Delays are rounded to whole steps.
    """

    kind: str = setting("EI", "EI, II, EE, or links", choices=KINDS)
    neurons: int = setting(2, "neurons altogether", low=1, high=100_000)
    delay_ms: float = setting(9.0, "delay of the links (in EI: of inhibition)", low=0)
    delay_e_ms: float = setting(0.0, "EI only: delay of excitation", low=0)
    g_mS_cm2: float = setting(2.0, "strength of each link", low=0)
    link_from: tuple[int, ...] = setting((), "links: presynaptic neurons, counted from 0", low=0)
    link_to: tuple[int, ...] = setting((), "links: postsynaptic neurons", low=0)
    link_sign: tuple[int, ...] = setting((), "links: 1 excites, -1 inhibits", low=-1, high=1)
    link_delay_ms: tuple[float, ...] = setting((), "links: delays; empty: delay_ms for all", low=0)
    link_g_mS_cm2: tuple[float, ...] = setting((), "links: strengths; empty: g_mS_cm2 for all", low=0)

    def __post_init__(self) -> None:
        check(self, "motif")
        if self.kind == "links":
            self._check_links()
            return
        given = [name for name in LISTS if getattr(self, name)]
        need(not given, f"motif.{', motif.'.join(given)} is given, but {self.kind} has its own links",
             fix='set motif.kind to "links"')  # fmt: skip
        need(self.neurons % 2 == 0, f"motif.neurons={self.neurons} does not split into two populations",
             fix=f"set it to {self.neurons + 1}")  # fmt: skip
        need(self.kind == "EI" or self.delay_e_ms == 0.0,
             f"motif.delay_e_ms={self.delay_e_ms:g} belongs to no link of {self.kind}",
             fix="set it to 0; motif.delay_ms is the delay of both links")  # fmt: skip

    def _check_links(self) -> None:
        links = len(self.link_from)
        for name in LISTS[1:]:
            held, may_be_empty = len(getattr(self, name)), name in LISTS[3:]
            need(held == links or (may_be_empty and not held),
                 f"motif.{name} holds {held} values for {links} links in motif.link_from",
                 fix=f"give {links} values" + (" or none" if may_be_empty else ""))  # fmt: skip
        largest = max((*self.link_from, *self.link_to), default=0)
        need(largest < self.neurons, f"a link names neuron {largest}, but motif.neurons={self.neurons}",
             fix=f"set motif.neurons to {largest + 1} or count neurons from 0")  # fmt: skip
        need(0 not in self.link_sign, "motif.link_sign holds 0", fix="set it to 1 (excites) or -1 (inhibits)")

    @property
    def delays_ms(self) -> tuple[float, ...]:
        """Every delay that some link has."""
        if self.kind == "links" and self.link_delay_ms:
            return self.link_delay_ms
        return (self.delay_ms, self.delay_e_ms) if self.kind == "EI" else (self.delay_ms,)


LISTS = ("link_from", "link_to", "link_sign", "link_delay_ms", "link_g_mS_cm2")


def motif_of(g_mS_cm2: Sequence[Sequence[float]], delay_ms: Sequence[Sequence[float]]) -> Motif:
    """A Motif from square matrices, row = presynaptic neuron, column = postsynaptic neuron.

    g_mS_cm2    positive excites, negative inhibits, 0: no link
    delay_ms    of the same shape; entries without a link are not read
    """
    found = [(i, j, g) for i, row in enumerate(g_mS_cm2) for j, g in enumerate(row) if g]
    return Motif(
        kind="links",
        neurons=len(g_mS_cm2),
        link_from=tuple(i for i, _, _ in found),
        link_to=tuple(j for _, j, _ in found),
        link_sign=tuple(1 if g > 0 else -1 for _, _, g in found),
        link_delay_ms=tuple(float(delay_ms[i][j]) for i, j, _ in found),
        link_g_mS_cm2=tuple(abs(float(g)) for _, _, g in found),
    )
