"""The named shapes, from v3 to tiny: each a TOML file beside this one, with the sources of its figures."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from fathom.config.errors import choose_from, need, quoted
from fathom.config.model import ModelConfig
from fathom.config.schema import Schema

PRESETS = ("v3", "v2-lite", "moonlight", "small", "tiny")  # from the largest to the smallest

MODEL = Schema(root=ModelConfig, prefix="model.")


def load_preset(name: str) -> ModelConfig:
    """The model a preset describes; ConfigError with the nearest and all known names otherwise."""
    model: ModelConfig = MODEL.build(preset_values(name))
    return model


def preset_values(name: object) -> Mapping[str, Any]:
    """What a preset says, by dotted name ("model.moe.num_experts"); ConfigError for an unknown name."""
    need(
        isinstance(name, str) and name in PRESETS,
        f"model.preset={quoted(name)} is not known",
        fix=choose_from(str(name) if isinstance(name, str) else "", PRESETS),
    )
    return _read(str(name))


@cache
def _read(name: str) -> Mapping[str, Any]:
    text = files("fathom.config").joinpath("presets", f"{name}.toml").read_text("utf-8")
    return MODEL.flatten(tomllib.loads(text), f"in preset {name}")
