"""A recipe: the five tables of one run, and the rules that hold between them."""

from __future__ import annotations

from dataclasses import dataclass

from hhdelay.config.errors import need
from hhdelay.config.motif import Motif
from hhdelay.config.neuron import Neuron
from hhdelay.config.noise import Noise
from hhdelay.config.setting import check, setting
from hhdelay.config.simulation import LONGEST_STEPS, Simulation
from hhdelay.config.synapse import Synapse


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything a simulation needs to know."""

    neuron: Neuron = setting(Neuron, "the membrane")
    synapse: Synapse = setting(Synapse, "the synapses")
    motif: Motif = setting(Motif, "the wiring")
    noise: Noise = setting(Noise, "the noise")
    simulation: Simulation = setting(Simulation, "the run")

    def __post_init__(self) -> None:
        check(self, "")
        run, dt_ms = self.simulation, self.simulation.dt_ms
        for delay_ms in self.motif.delays_ms:
            need(delay_ms == 0.0 or delay_ms >= dt_ms,
                 f"a delay of {delay_ms:g} ms is below the step simulation.dt_ms={dt_ms:g}",
                 fix=f"set the delay to 0 or to {dt_ms:g} or more, or lower simulation.dt_ms")  # fmt: skip
        steps = (run.warmup_ms + run.duration_ms + max(self.motif.delays_ms, default=0.0)) / dt_ms
        need(steps <= LONGEST_STEPS, f"this run takes {steps:.3g} steps, above {LONGEST_STEPS}",
             fix="lower simulation.duration_ms and raise simulation.replicas")  # fmt: skip
        start = len(run.start_V_mV)
        need(start in (0, 1, self.motif.neurons),
             f"simulation.start_V_mV holds {start} values for {self.motif.neurons} neurons",
             fix=f"give none (rest), one for all, or {self.motif.neurons}")  # fmt: skip
        self._check_kinds()

    def _check_kinds(self) -> None:
        """A neuron has one s: where the kinds of synapse differ in speed, all its links are of one."""
        of = self.synapse
        same = (of.exc_rise_per_ms, of.exc_decay_per_ms) == (of.inh_rise_per_ms, of.inh_decay_per_ms)
        if same or of.form == "threshold" or self.motif.kind != "links":
            return
        sign: dict[int, int] = {}
        for neuron, its in zip(self.motif.link_from, self.motif.link_sign, strict=True):
            need(sign.setdefault(neuron, its) == its,
                 f"neuron {neuron} both excites and inhibits, through synapses of different speed",
                 fix="give all its links one sign, or both kinds of synapse the same rates")  # fmt: skip
