"""What a cluster can do, every number with its source."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from fathom.config.errors import ConfigError, choose_from, need, plain

CLUSTERS = ("h800",)    # clusters/*.toml
NAMED = re.compile(r"([a-z][a-z0-9-]*?)x([0-9]{1,9})")
# A number's place in the file -> the field that holds it.
NUMBERS = {
    "devices_per_node": "per_node",
    "device.memory_bytes": "memory_bytes",
    "device.bf16_flops": "bf16_flops",
    "device.fp8_flops": "fp8_flops",
    "device.units": "units",
    "device.sending_units": "sending_units",
    "device.watts": "watts",
    "device.usd_per_hour": "usd_per_hour",
    "share.matmul": "matmul_share",
    "share.attention": "attention_share",
    "share.attention_backward": "attention_backward_share",
    "share.other": "other_share",
    "network.nvlink_bytes_per_s": "nvlink_bytes_per_s",
    "network.ib_bytes_per_s": "ib_bytes_per_s",
    "network.dispatch_bytes_per_s": "dispatch_bytes_per_s",
    "network.combine_bytes_per_s": "combine_bytes_per_s",
    "network.pair_over_streams": "pair_over_streams",
}  # fmt: skip
WHOLE = {"devices_per_node": "per_node", "device.units": "units", "device.sending_units": "sending_units"}
LEAST, MOST = 1e-6, 1e30
MAY_BE_0 = ("device.sending_units", "device.watts", "device.usd_per_hour", "share.other")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Devices in nodes. Shares are of the peak of the units that compute while the others send.

    other_share        time of all that is neither product nor attention, over the time of those
    dispatch, combine  what all-to-alls of experts reach beside computation
    pair_over_streams  how much longer a forward beside a backward takes than its busier stream
    sources            number -> where it is from
    """

    name: str
    devices: int
    per_node: int
    memory_bytes: float
    bf16_flops: float
    fp8_flops: float
    units: int
    sending_units: int
    watts: float
    usd_per_hour: float
    matmul_share: float
    attention_share: float
    attention_backward_share: float
    other_share: float
    nvlink_bytes_per_s: float
    ib_bytes_per_s: float
    dispatch_bytes_per_s: float
    combine_bytes_per_s: float
    pair_over_streams: float
    sources: Mapping[str, str]

    def matmul_flops(self, *, fp8: bool) -> float:
        """FLOP/s that products reach on the units that compute."""
        return (self.fp8_flops if fp8 else self.bf16_flops) * self._computing * self.matmul_share

    def attention_flops(self, *, backward: bool) -> float:
        """FLOP/s that the core of attention reaches, in bf16."""
        share = self.attention_backward_share if backward else self.attention_share
        return self.bf16_flops * self._computing * share

    @property
    def _computing(self) -> float:
        return 1.0 - self.sending_units / self.units


def load_cluster(name: str) -> Cluster:
    """`h800x2048`, or FILE.tomlx8: a kind of device and how many.

    raises    ConfigError in one line: an unknown kind, a number that is missing, has no source or is none
    """
    found = NAMED.fullmatch(name)
    if found and found[1] in CLUSTERS:
        text = files("fathom.plan").joinpath("clusters", f"{found[1]}.toml").read_text("utf-8")
        return _cluster(found[1], text, int(found[2]))
    path, x, count = name.rpartition("x")
    if x and count.isdecimal() and len(count) < 10 and path.endswith(".toml"):
        try:
            return _cluster(plain(path), Path(path).read_text("utf-8"), int(count))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"cannot read {plain(path)} ({why}). Fix: give a cluster file") from None
    kind = found[1] if found else name
    fix = f"give a kind and a number of devices, as h800x2048 or FILE.tomlx8; {choose_from(kind, CLUSTERS)}"
    raise ConfigError(f"no cluster {plain(name)} is known. Fix: {fix}")


def _cluster(label: str, text: str, devices: int) -> Cluster:
    need(devices >= 1, f"{label}x{devices} has no device", fix="give one or more")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{label} is no TOML ({error}). Fix: correct that line") from None
    numbers: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for place, field in NUMBERS.items():
        numbers[field], sources[place] = _number(label, table, place)
    for place, field in WHOLE.items():
        need(numbers[field] == int(numbers[field]), f"{label}: {place}={numbers[field]:g} is no whole number",
             fix="count them")  # fmt: skip
        numbers[field] = int(numbers[field])
    need(numbers["sending_units"] < numbers["units"], f"{label}: no unit is left to compute",
         fix="set device.sending_units below device.units")  # fmt: skip
    return Cluster(name=str(table.get("name", label)), devices=devices, sources=sources, **numbers)


def _number(label: str, table: Mapping[str, Any], place: str) -> tuple[float, str]:
    at: Any = table
    for part in place.split("."):
        at = at.get(part) if isinstance(at, Mapping) else None
    value, source = (at.get("value"), at.get("source")) if isinstance(at, Mapping) else (None, None)
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else -1.0
    except OverflowError:
        number = -1.0
    zero = number == 0 and place in MAY_BE_0
    if isinstance(source, str) and (LEAST <= number <= MOST or zero):
        return number, source
    fix = f'write {place} = {{ value = NUMBER, source = "where it is from" }}'
    raise ConfigError(f"{label}: {place} is missing, no sensible number, or has no source. Fix: {fix}")
