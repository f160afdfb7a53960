"""HTML from text that nobody vouches for: everything is escaped here and nowhere else."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "\ufffd")  # what HTML cannot hold


def text(value: object) -> str:
    """`value` as text of a page or as an attribute in quotes; control characters and half surrogates go."""
    return html.escape(sound(str(value)), quote=True)


def sound(value: str) -> str:
    """`value` as UTF-8 and HTML can hold it."""
    return value.translate(CONTROLS).encode("utf-8", "replace").decode("utf-8")


def script_json(value: Any) -> str:
    """JSON for a <script> block: no "<", ">" or "&" in it, so that nothing can end the block early."""
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: UTF-8 takes it
    return plain.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def tag(name: str, inner: str, **attributes: object) -> str:
    """An element; `inner` is HTML, attributes are text. `kind` is its class."""
    given = {"class" if key == "kind" else key: value for key, value in attributes.items()}
    written = "".join(f' {key}="{text(value)}"' for key, value in given.items())
    return f"<{name}{written}>{inner}</{name}>"


def rows(lines: Iterable[Sequence[str]], *, head: Sequence[str] = (), kind: str = "") -> str:
    """A table; cells are HTML, the first of each line is its heading."""
    top = f"<thead><tr>{''.join(tag('th', h, scope='col') for h in head)}</tr></thead>" if head else ""
    body = "".join(
        f"<tr>{tag('th', first, scope='row')}{''.join(tag('td', cell) for cell in rest)}</tr>"
        for first, *rest in lines
    )
    return tag("div", tag("table", f"{top}<tbody>{body}</tbody>", kind=kind), kind="scroll", tabindex="0")


def fold(title: str, inner: str, *, opened: bool = False, kind: str = "fold") -> str:
    """A part that opens on a click."""
    return f'<details class="{kind}"{" open" if opened else ""}><summary>{title}</summary>{inner}</details>'


def section(name: str, title: str, inner: str, note: str = "") -> str:
    """A part of the page with its heading; nothing if it is empty."""
    if not inner:
        return ""
    small = tag("small", text(note)) if note else ""
    return tag("section", tag("h2", text(title) + small) + inner, id=name)
