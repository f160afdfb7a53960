"""Rotary settings in config.json, in both spellings.

`rope_theta` with `rope_scaling` is what DeepSeek released and most programs read; `rope_parameters` is what
transformers 5 writes. Both are written here, and either is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fathom.config.errors import DataError, need
from fathom.config.model import RopeConfig

YARN_KEYS = {
    "factor": "factor",
    "original_max_position_embeddings": "original_positions",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "mscale": "mscale",
    "mscale_all_dim": "mscale_all",
}
# How DeepSeek's own code reads a rope_scaling in which a key is missing.
YARN_DEFAULTS = {
    "original_positions": 4096,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all": 0.0,
}
ROPE_KEYS = {*YARN_KEYS, "type", "rope_type", "rope_theta", "attention_factor"}
IDLE_ROPE_VALUES = {"truncate": True, "partial_rotary_factor": 1.0}  # these change nothing
MAX_REAL = 2**1023  # above it, an integer is no float64
FIX = "use weights of a DeepSeek-V3 network, with the config.json that was saved beside them"


def rope_keys(rope: RopeConfig) -> dict[str, Any]:
    """Both spellings of the rotary settings."""
    if rope.factor == 1.0:
        return {
            "rope_theta": rope.theta,
            "rope_scaling": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": rope.theta},
        }
    yarn = {theirs: getattr(rope, ours) for theirs, ours in YARN_KEYS.items()}
    if not (rope.mscale and rope.mscale_all):
        yarn["attention_factor"] = rope.table_factor  # transformers takes a 0 here for "not given" and uses 1
    return {
        "rope_theta": rope.theta,
        "rope_scaling": {"type": "yarn", "rope_type": "yarn", **yarn},
        "rope_parameters": {"rope_type": "yarn", "rope_theta": rope.theta, **yarn},
    }


def read_rope(hf: Mapping[str, Any], ours: Mapping[str, Any], where: str) -> RopeConfig:
    """The rotary settings from either spelling, or from both where they agree; `ours` where YaRN is off."""
    keys = _merged_rope(hf, where)
    kind = keys.get("rope_type", keys.get("type", "default"))
    need(
        kind in ("default", "yarn"),
        f"{where}: rope_type={kind!r} is not supported (only yarn)",
        fix=FIX,
        error=DataError,
    )
    theta = real(keys.get("rope_theta", RopeConfig().theta))
    if kind == "default":
        return RopeConfig(theta=theta, **ours)
    need("factor" in keys, f"{where}: rope_scaling has no factor", fix=FIX, error=DataError)
    given = {YARN_KEYS[key]: real(value) for key, value in keys.items() if key in YARN_KEYS}
    settings = YARN_DEFAULTS | given
    settings["original_positions"] = keys.get(
        "original_max_position_embeddings", settings["original_positions"]
    )
    rope = RopeConfig(theta=theta, **settings)
    table = real(keys.get("attention_factor", rope.table_factor))
    need(
        isinstance(table, float) and math.isclose(table, rope.table_factor, rel_tol=1e-6),
        f"{where}: attention_factor={table!r} is not the {rope.table_factor:g} of mscale and mscale_all_dim",
        fix=FIX,
        error=DataError,
    )
    return rope


def _merged_rope(hf: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All spellings as one; where they differ, readers would differ too, so that is an error."""
    merged: dict[str, Any] = {"rope_theta": hf["rope_theta"]} if "rope_theta" in hf else {}
    for spelling in ("rope_scaling", "rope_parameters"):
        keys = hf.get(spelling) or {}
        need(
            isinstance(keys, Mapping),
            f"{where}: {spelling}={keys!r} is not a table",
            fix=FIX,
            error=DataError,
        )
        for key, value in keys.items():
            if value is None or IDLE_ROPE_VALUES.get(key) == value:
                continue
            known = key in ROPE_KEYS
            need(known, f"{where}: {spelling}.{key}={value!r} is not supported", fix=FIX, error=DataError)
            need(
                merged.setdefault(key, value) == value,
                f"{where}: {key} is both {merged[key]!r} and {value!r} ({spelling})",
                fix="let rope_theta, rope_scaling and rope_parameters agree, or delete one spelling",
                error=DataError,
            )
    return merged


def real(value: Any) -> Any:
    """10000 in a JSON file is 10000.0 here; anything else is left for the config's own check."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < MAX_REAL else math.inf
    return value
