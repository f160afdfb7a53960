"""Nonsense never builds, wherever it is written: in Python, in a recipe file, on the command line.

The fields are found by walking the classes, so a new setting is under test the day it is written.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fathom.config.errors import ConfigError
from fathom.config.load import SCHEMA, load_recipe
from fathom.config.recipe import Recipe

QUICK = settings(deadline=None, derandomize=True, database=None, max_examples=200)


class Hostile:
    """Refuses to be shown or compared."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no ==")


class Lines:
    """Shows itself on several lines."""

    def __repr__(self) -> str:
        return "many\nlines\u2028of\x1b[31m text" * 9


NONSENSE: list[Any] = [
    *(0, -1, 1, 7, 2.5, -0.0, 1e308, 5e-324, math.nan, math.inf, -math.inf),
    *(10**30, 10**400, 10**5000, -(10**5000), 2**63 - 1, 2**63, 1j, Decimal(1)),
    *(True, False, None, "many", "", " ", "a\nb", "\x00", "\ud800", "\x7f", "x" * 10_000, b"x"),
    *([], {}, (), set(), [1], [0.5, None], ["a", 2], [math.nan], [""], ["a", "a"], (True,), [[1.0]]),
    *({"a": 1}, object(), int, len, Hostile(), Lines(), [Hostile()]),
]


def walk(kind: Any, prefix: str = "") -> list[tuple[str, Any, str]]:
    """(dotted name, config class, field) for each field of each class, tables included."""
    hints, found = get_type_hints(kind), []
    for name in kind.__dataclass_fields__:
        found.append((prefix + name, kind, name))
        if is_dataclass(hints[name]):
            found += walk(hints[name], f"{prefix}{name}.")
    return found


FIELDS = walk(Recipe)


def is_allowed(value: Any, kind: Any, name: str) -> bool:
    """Whether a built `value` keeps its field's promise, by this test's own reading of type and bounds."""
    hint = get_type_hints(kind)[name]
    if is_dataclass(hint):
        return type(value) is hint
    members = value if isinstance(value, tuple) else (value,)
    inner = {tuple[str, ...]: str, tuple[float, ...]: float}.get(hint, hint)
    if (inner is not hint) != (type(value) is tuple) or any(type(m) is not inner for m in members):
        return False
    rules = kind.__dataclass_fields__[name].metadata
    return all(
        (inner is not float or math.isfinite(m))
        and (inner is not int or abs(m) < 2**63)
        and (inner is not str or all(32 <= ord(c) != 127 for c in m))
        and (rules["low"] is None or m >= rules["low"])
        and (rules["high"] is None or m <= rules["high"])
        and (rules["above"] is None or m > rules["above"])
        and (rules["choices"] is None or m in rules["choices"])
        for m in members
    )


def assert_says_why(error: ConfigError, dotted: str) -> None:
    """One line a terminal can show, that names the setting and ends with the fix."""
    text = str(error)
    assert text.isprintable(), repr(text)
    assert len(text.splitlines()) == 1
    assert len(text) < 700, text
    what, fix, _ = re.split(r"\. (Fix): ", text, maxsplit=1)
    assert dotted in what, f"{dotted} is not named in: {what}"
    assert fix


def leaf_of(dotted: str, recipe: Recipe) -> Any:
    value: Any = recipe
    for part in dotted.split("."):
        value = getattr(value, part)
    return value


def assert_all_allowed(recipe: Recipe) -> None:
    for dotted, kind, name in FIELDS:
        value = leaf_of(dotted, recipe)
        assert is_allowed(value, kind, name), f"{dotted}={value!r} was let through"


@pytest.mark.parametrize(("dotted", "kind", "name"), FIELDS, ids=[f[0] for f in FIELDS])
def test_nonsense_builds_only_what_the_field_promises(dotted: str, kind: Any, name: str) -> None:
    for nonsense in NONSENSE:
        try:
            built = kind(**{name: nonsense})
        except ConfigError as error:
            assert_says_why(error, dotted)
        else:
            assert is_allowed(getattr(built, name), kind, name), f"{dotted} took {type(nonsense)}"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.sampled_from(["fp32", "cpu", "stream", "softmax"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@QUICK
@given(field=st.sampled_from(FIELDS), value=ANYTHING)
def test_any_value_builds_as_promised_or_says_why(field: tuple[str, Any, str], value: Any) -> None:
    dotted, kind, name = field
    try:
        built = kind(**{name: value})
    except ConfigError as error:
        assert_says_why(error, dotted)
    else:
        assert is_allowed(getattr(built, name), kind, name)


def suggestion(error: ConfigError) -> Any:
    """The value that a message of the form "set it to ..." proposes."""
    fix = str(error).rpartition("Fix: ")[2]
    found = re.fullmatch(r"set it to (?:one of (\S+?)(?:,.*)?|.*such as (.*)|(\S+) or (?:more|less))", fix)
    assert found, f"no value in: {fix}"
    if found[1]:
        return found[1]
    return tomllib.loads(f"value = {found[2] or found[3]}")["value"]


@pytest.mark.parametrize(("dotted", "kind", "name"), FIELDS, ids=[f[0] for f in FIELDS])
def test_following_the_fix_ends_the_complaint(dotted: str, kind: Any, name: str) -> None:
    for nonsense in NONSENSE:
        try:
            kind(**{name: nonsense})
        except ConfigError as error:
            if "Fix: set it to" not in str(error):
                continue  # a rule between fields, below; or a table
            try:
                kind(**{name: suggestion(error)})
            except ConfigError as next_error:  # the value is good; it may now disagree with another field
                assert "Fix: set it to" not in str(next_error), f"{error} -- then: {next_error}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


def load_or_reason(path: str, overrides: tuple[str, ...] = ()) -> str:
    """The message of a load that failed, "" for one that worked; any other exception fails the test."""
    try:
        loaded = load_recipe(path, overrides)
    except ConfigError as error:
        assert_says_why(error, "")
        return str(error)
    assert_all_allowed(loaded.recipe)
    assert set(loaded.origin) == set(SCHEMA.leaves)
    return ""


TOML_VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(lambda x: repr(x)),
    st.sampled_from(
        ["1e6", "1_000", "0x10", "+inf", "nan", "-0.0", "1e400", "9" * 5000, "true", "1979-05-27"]
    ),
    st.sampled_from(
        ['""', '"many"', '"a\\nb"', '"\\u0000"', "[]", "[[]]", "{}", "{a = 1}", '["a", 1]', "[1, 2.5]"]
    ),
    st.sampled_from(["[" * 3000, "'", '"""', "07", "=", "", "many", "1 2", "\\"]),
)


@QUICK
@given(name=st.sampled_from(sorted(SCHEMA.leaves)), value=TOML_VALUES)
def test_any_value_in_a_file(folder: Path, name: str, value: str) -> None:
    (folder / "one.toml").write_text(
        f"model.preset = 'tiny'\n{name} = {value}\ntrain.seq_len = 64\n", "utf-8"
    )
    load_or_reason(str(folder / "one.toml"))


@QUICK
@given(raw=st.binary(max_size=60) | st.text("[]{}=.#\"'\n modeltrain019,", max_size=40).map(str.encode))
def test_any_bytes_as_a_file(folder: Path, raw: bytes) -> None:
    (folder / "any.toml").write_bytes(raw)
    load_or_reason(str(folder / "any.toml"))


WORDS = st.text(max_size=12) | st.sampled_from(
    ["1e6", "1_000", "nan", "[a, b]", "a,b", "[1,", '"a', "'a'", "1\ndata=2"]
)


@QUICK
@given(name=st.sampled_from([*sorted(SCHEMA.leaves), "model.preset"]), value=WORDS | TOML_VALUES)
def test_any_value_on_the_command_line(name: str, value: str) -> None:
    reason = load_or_reason("demo", (f"{name}={value}",))
    assert not reason or name in reason


@QUICK
@given(argument=st.text(max_size=20) | st.text("=.[]{}\"' moderatinl,", max_size=20))
def test_any_argument_on_the_command_line(argument: str) -> None:
    load_or_reason("demo", (argument,))


@settings(QUICK, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(max_size=20))
def test_any_path(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_or_reason(path)
