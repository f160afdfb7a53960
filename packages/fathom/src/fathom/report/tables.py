"""The parts of the page that are text: tiles, final figures, machine, events, samples."""

from __future__ import annotations

from collections.abc import Sequence

from fathom.report import units
from fathom.report.final import Final, final_figures
from fathom.report.jsonl import number
from fathom.report.markup import fold, rows, section, tag, text
from fathom.report.run import UNKNOWN, Run, Sample, table
from fathom.report.settings import settings_html

EVENTS = 400  # lines of the list, the newest
EVALUATIONS = 16  # moments of which samples are shown, spread over the run with both ends
OF_ONE = 64  # samples of one moment
LONGEST = 2000  # characters of a prompt, a sample or an event's detail


def figures(final: Final) -> list[tuple[str, str, str]]:
    """(name, figure, note) of everything a run came to."""
    recent = f"mean of the last {final.width:,} steps" if final.width > 1 else "of the last step"
    return [
        ("training loss", units.figure(final.loss), f"nats per token, {recent}"),
        ("bits per byte", units.figure(final.bits_per_byte), "held-out text"),
        ("MTP loss", units.figure(final.mtp), f"nats per token, {recent}"),
        ("tokens", units.count(final.tokens), f"in {units.plural(final.steps, 'step')}"),
        ("time", units.duration(final.seconds), "inside steps"),
        ("tokens per second", units.count(final.rate), "over the whole time"),
        ("MFU", units.percent(final.mfu), "of the measured matmul rate"),
        ("MaxVio", units.figure(final.violation, 2), f"0 = even loads, {recent}"),
    ]


def steadiness(final: Final) -> str:
    """How calm the run was, in words."""
    if final.spikes is None and final.rollbacks is None:
        return "spikes and rollbacks were not recorded"
    spikes = "" if final.spikes is None else units.plural(final.spikes, "spike")
    rollbacks = "" if final.rollbacks is None else units.plural(final.rollbacks, "rollback")
    return ", ".join(part for part in (spikes, rollbacks) if part)


def standing(final: Final) -> str:
    """Where the run is: finished, or how far it came."""
    share = "" if final.progress != final.progress else f" at {final.progress:.0%} of its budget"
    return {
        "finished": "finished",
        "unfinished": "going on, or interrupted," + share if share else "end not recorded",
    }.get(final.state, final.state + share)


def tiles_html(run: Run) -> str:
    """The headline of one run; figures it does not record are left out."""
    final = final_figures(run)
    shown = [f for f in figures(final) if f[1] != units.UNKNOWN]
    cards = "".join(
        tag("div", tag("dt", text(name)) + tag("dd", text(value)) + tag("dd", text(note), kind="note"))
        for name, value, note in shown
    )
    calm = final.spikes == 0 and not final.rollbacks
    state = tag("p", f"{text(steadiness(final))} · {text(standing(final))}", kind="calm" if calm else "state")
    return tag("dl", cards, kind="tiles") + state


def comparison_html(runs: Sequence[Run]) -> str:
    """Final figures side by side, a line for each figure."""
    finals = [final_figures(run) for run in runs]
    columns = [figures(final) for final in finals]
    lines = [
        (f"{text(name)}", *(text(column[i][1]) for column in columns))
        for i, (name, _, _) in enumerate(columns[0])
    ]
    lines.append(("steps", *(f"{final.steps:,}" for final in finals)))
    lines.append(("steadiness", *(text(steadiness(final)) for final in finals)))
    lines.append(("state", *(text(standing(final)) for final in finals)))
    return rows(lines, head=("figure", *(text(run.name) for run in runs)), kind="final")


def machine_html(run: Run) -> str:
    """What the run was, and what it ran on; only what it records."""
    machine, model = table(run.about, "machine"), table(run.about, "parameters")
    about = run.about
    memory, peak, per_token = (
        number(machine.get("memory_bytes")),
        number(machine.get("peak_flops")),
        number(about.get("flops_per_token")),
    )
    lines = [
        ("folder", str(run.folder)),
        ("kind", about.get("title")),
        ("started", units.moment(about.get("started"))),
        ("network", run.settings.get("model.name")),
        ("parameters", _count(model.get("total"))),
        ("active for a token", _count(model.get("active"))),
        ("MTP, on top", _count(model.get("mtp"))),
        ("arithmetic", f"{units.flops(per_token)} per token" if per_token == per_token else None),
        ("device", machine.get("device")),
        ("precision", machine.get("precision")),
        ("matmul rate", f"{units.flops(peak)}/s" if peak == peak else None),
        ("processor", machine.get("cpu")),
        ("cores", machine.get("cores")),
        ("threads", machine.get("threads")),
        ("memory", units.size(memory) if memory == memory else None),
        *((name, about.get(name)) for name in ("fathom", "torch", "python")),
        ("lines left out", _damage(run)),
    ]
    known = [(text(name), text(value)) for name, value in lines if value not in (None, "")]
    return rows(known, kind="facts")


def _count(value: object) -> str | None:
    found = number(value)
    return None if found != found else f"{found:,.0f}"


def _damage(run: Run) -> str | None:
    """How many lines of the run's files could not be read, for a reader who wonders about a gap."""
    lost = {"metrics": run.curves.damaged, "loads": run.loads.damaged if run.loads else 0}
    return ", ".join(f"{n:,} of {name}.jsonl" for name, n in lost.items() if n) or None


def events_html(run: Run) -> str:
    """What happened, newest last."""
    if not run.events:
        return ""
    shown = run.events[-EVENTS:]
    lines = [(f"{e.step:,}", text(e.kind), text(e.detail[:LONGEST])) for e in shown]
    left = len(run.events) - len(shown)
    note = tag("p", f"{left:,} earlier ones are in events.jsonl.") if left else ""
    return rows(lines, head=("step", "what", "detail"), kind="events") + note


def samples_html(run: Run) -> str:
    """What the model wrote over time: the last moment open, the others folded."""
    moments: dict[int, list[Sample]] = {}
    for sample in run.samples:
        moments.setdefault(sample.step, []).append(sample)
    steps = spread(sorted(moments), EVALUATIONS)
    parts = []
    for step in reversed(steps):
        written = "".join(_sample(sample) for sample in moments[step][:OF_ONE])
        parts.append(fold(f"step {step:,}", written, opened=step == steps[-1]))
    left = len(moments) - len(steps)
    note = tag("p", f"{left:,} other moments are in samples.jsonl.") if left else ""
    return "".join(parts) + note


def _sample(sample: Sample) -> str:
    prompt = tag("span", text(sample.prompt[:LONGEST]), kind="prompt")
    return tag("p", prompt + text(sample.text[:LONGEST]), kind="sample", dir="auto")


def spread(places: Sequence[int], most: int) -> list[int]:
    """At most `most` of `places`, evenly spread, with the first and the last."""
    if len(places) <= most:
        return list(places)
    return [places[round(i * (len(places) - 1) / (most - 1))] for i in range(most)]


def detail_html(run: Run, prefix: str = "") -> str:
    """Samples, settings, machine and events of one run, as sections whose names begin with `prefix`."""
    return "".join(
        (
            section(f"{prefix}samples", "Samples", samples_html(run), "the prompt is dim"),
            section(f"{prefix}settings", "Settings", settings_html(run), "with where each value came from"),
            section(f"{prefix}machine", "Run and machine", machine_html(run)),
            section(f"{prefix}events", "Events", events_html(run)),
        )
    ) or tag("p", UNKNOWN)
