"""The map as a user of Brian2 would make it: the whole grid as one group, cpp_standalone, OpenMP.

    python -I brian2_map.py JOB.json FOLDER

An environment that has Brian2 runs it, so nothing of hhdelay is imported. JOB.json holds what
`hhdelay.bench.peer.job_of` wrote. The program is built in FOLDER, and one line of JSON tells how long that
took. Each line on stdin is the name of an .npz file: the map is run once more, its spikes are written there
(`i`, `t_ms`), and a line of JSON tells the seconds of it. The end of stdin ends the program.

Equations, constants, step and scheme (Euler-Maruyama) are ours. The synapse is not quite: Brian2 delays
spikes, not variables, so a spike opens the synapse for `pulse_ms` after the delay, where ours follows H(V).
One link leads to each neuron, so s is a variable of the neuron that feels it.

Chosen for speed: powers are products and the ramps plain quotients (0/0 has probability 0 under noise), which
was no slower than `m**3` and `exprel`; constants stand in the namespace, so that the compiler sees them; the
compiler's flags are Brian2's own. `SpikeMonitor` records, since its cost is per spike, not per step.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import brian2  # type: ignore[import-not-found]
import numpy as np

EQUATIONS = """
dv/dt = (I - g_Na*(m*m*m)*h*(v - E_Na) - g_K*((n*n)*(n*n))*(v - E_K) - g_leak*(v - E_leak)
         - g*s*(v - E_syn))/C/ms + sqrt(2*D/ms)/C*xi : 1
dm/dt = speed*(0.1*(v + 40)/(1 - exp(-(v + 40)/10))*(1 - m) - 4*exp(-(v + 65)/18)*m)/ms : 1
dh/dt = speed*(0.07*exp(-(v + 65)/20)*(1 - h) - 1/(1 + exp(-(v + 35)/10))*h)/ms : 1
dn/dt = speed*(0.01*(v + 55)/(1 - exp(-(v + 55)/10))*(1 - n) - 0.125*exp(-(v + 65)/80)*n)/ms : 1
ds/dt = (rise*int(t < open_until)*(1 - s) - decay*s)/ms : 1
open_until : second
g : 1 (constant)
E_syn : 1 (constant)
"""


def network(job: dict[str, Any]) -> tuple[Any, Any]:
    """The network of the job, and its monitor of spikes."""
    ms = brian2.ms
    group = brian2.NeuronGroup(
        len(job["source"]), EQUATIONS, method="euler", threshold="v > 0", name="neurons",
        refractory=job["refractory_ms"] * ms, namespace=job["constants"],
    )
    group.v, group.m, group.h, group.n = job["start"]
    group.open_until = -1 * ms
    group.g, group.E_syn = np.array(job["g_mS_cm2"]), np.array(job["E_syn_mV"])
    links = brian2.Synapses(
        group, group, on_pre="open_until_post = t + pulse", name="links",
        namespace={"pulse": job["pulse_ms"] * ms},
    )
    links.connect(i=np.array(job["source"]), j=np.arange(len(job["source"])))
    links.delay = np.array(job["delay_ms"]) * ms
    monitor = brian2.SpikeMonitor(group, name="spikes")
    return brian2.Network(group, links, monitor), monitor


def children_cpu_s() -> float:
    """Processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(job_file: str, folder: str) -> None:
    """Build once, then run as often as asked."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)   # compilers and Brian2 may print; the answers stay clean
    job = json.loads(Path(job_file).read_text("utf-8"))
    start_s = time.perf_counter()
    brian2.set_device("cpp_standalone", build_on_run=False)
    brian2.prefs.devices.cpp_standalone.openmp_threads = job["openmp_threads"]
    brian2.defaultclock.dt = job["dt_ms"] * brian2.ms
    brian2.seed(job["seed"])
    whole, monitor = network(job)
    whole.run(job["total_ms"] * brian2.ms)
    brian2.device.build(directory=folder, run=False, compile=True, with_output=False)
    print(json.dumps({"build_s": time.perf_counter() - start_s, "version": brian2.__version__}), file=answers)
    for line in sys.stdin:
        before_s = children_cpu_s()
        brian2.device.run(with_output=False)
        cpu_s = children_cpu_s() - before_s
        np.savez(line.strip(), i=np.array(monitor.i), t_ms=np.array(monitor.t / brian2.ms))
        # Brian2's own clock: the loop over time, without the start of the program and the writing of results
        print(json.dumps({"run_s": brian2.device._last_run_time, "cpu_s": cpu_s}), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
