"""A JSON object that a stranger sent, read field by field; what is not known is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from fathom.config.errors import choose_from, plain, quoted
from fathom.serve.errors import ApiError, need

NOTHING: Mapping[str, tuple[Any, ...]] = {}


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. ApiError for everything else, numbers that no JSON has among it."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8 at byte {error.start}", fix="send UTF-8") from None
    except RecursionError:
        raise ApiError(400, "the body nests without end", fix="send flatter JSON") from None
    except ValueError as error:  # JSONDecodeError, and whole numbers of more than 4300 digits
        raise ApiError(400, f"the body is not JSON ({plain(str(error))})", fix="send a JSON object") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"the body is {quoted(value)}, not an object", fix="send a JSON object")
    if b"\\u" in body:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except RecursionError:
            raise ApiError(400, "the body nests without end", fix="send flatter JSON") from None
        except UnicodeEncodeError:
            what = "the body holds half of a surrogate pair"
            raise ApiError(400, what, fix="escape both halves, or neither") from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


class Fields:
    """The fields of one object. A null counts as absent.

    where     what its fields are called in errors, such as "stream_options."
    neutral   fields that are not supported, with the values that ask for nothing
    """

    def __init__(
        self,
        table: Any,
        known: Collection[str],
        *,
        where: str = "",
        neutral: Mapping[str, tuple[Any, ...]] = NOTHING,
    ) -> None:
        self._where = where
        if not isinstance(table, Mapping):  # nothing is quoted that is not wrong: values may be large
            own = where.rstrip(".")
            raise ApiError(400, f"{own}={quoted(table)} is not an object", fix="give an object", param=own)
        self._table: Mapping[str, Any] = table
        for name, value in table.items():
            param = self.param(name)
            if name in neutral:
                nothing = value is None or any(
                    value == one and type(value) is type(one) for one in neutral[name]
                )
                if not nothing:
                    what = f"{param}={quoted(value)} is not supported"
                    raise ApiError(400, what, fix=f"leave {name} out", param=param)
            elif name not in known:
                what = f"the field {param} is not known here"
                raise ApiError(
                    400, what, fix=choose_from(name, sorted(known)), param=param, code="unknown_field"
                )

    def param(self, name: str) -> str:
        """A field as errors call it."""
        return plain(f"{self._where}{name}")

    def get(self, name: str) -> Any:
        """As it was sent; None = absent."""
        return self._table.get(name)

    def given(self, name: str) -> bool:
        """Whether there is a value."""
        return self.get(name) is not None

    def want(self, name: str, ok: bool, says: str, *, fix: str = "") -> None:
        """Refuse the field's value as "not `says`" unless `ok`."""
        if not ok:
            what = f"{self.param(name)}={quoted(self.get(name))} is not {says}"
            raise ApiError(400, what, fix=fix or f"give {says}, or leave it out", param=self.param(name))

    def text(self, name: str, *, most: int | None = None, required: bool = False) -> str | None:
        """A text."""
        value = self.get(name)
        if value is None and not required:
            return None
        says = "a text" if most is None else f"a text of at most {most} characters"
        ok = isinstance(value, str) and (most is None or len(value) <= most)
        self.want(name, ok, says, fix=f"give {name} as {says}" if required else "")
        return str(value)

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number within bounds; 3.0 is one."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        ok = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        self.want(name, ok, f"a whole number from {low} to {high}")
        return int(value)

    def number(self, name: str, low: float, high: float, *, above: bool = False) -> float | None:
        """A number within bounds; `above`: the lower one is none of them."""
        value = self.get(name)
        if value is None:
            return None
        ok = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        bounds = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        self.want(name, ok and not (above and value == low), f"a number {bounds}")
        return float(value)

    def flag(self, name: str) -> bool | None:
        """True or false."""
        value = self.get(name)
        self.want(name, value is None or isinstance(value, bool), "true or false")
        return value if isinstance(value, bool) else None

    def items(self, name: str, most: int, *, least: int = 0) -> list[Any]:
        """A list; absent = none in it."""
        value = self.get(name)
        if value is None:
            value = []
        says = f"a list of {f'{least} to' if least else 'at most'} {most}"
        ok = isinstance(value, list) and least <= len(value) <= most
        if isinstance(value, list) and not ok:
            what = f"{self.param(name)} holds {len(value)} and is not {says}"
            need(False, self.param(name), what, fix=f"give {says}")
        self.want(name, ok, says)
        return list(value)


def need_shallow(value: Any, param: str) -> None:
    """Refuse JSON that nests deeper than a schema may, or is longer. Not by recursion."""
    from fathom.serve.limits import SCHEMA_BYTES, SCHEMA_DEPTH

    level, depth = [value], 0
    while level:
        inner = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))
        ]
        level, depth = [child for children in inner for child in children], depth + bool(inner)
        fix = f"nest at most {SCHEMA_DEPTH} deep"
        need(depth <= SCHEMA_DEPTH, param, f"{param} nests deeper than {SCHEMA_DEPTH}", fix=fix)
    size = len(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    what = f"{param} has {size:,} bytes, above {SCHEMA_BYTES:,}"
    need(size <= SCHEMA_BYTES, param, what, fix="shorten it")
