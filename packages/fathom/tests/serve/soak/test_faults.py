"""Every fault of the table, and behind each of them the server as it was.

    python -m pytest -m soak -k faults -s       does them all and prints the table in Markdown
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import faults_clients
import faults_ends
import faults_engine
import pytest
from faults import KNOWN, Fault, endure, whole
from faults_engine import SMALL_PAGES
from soak_server import Server

QUICK = [one for one in KNOWN if one.quick]
SERVERS: dict[str, dict[str, Any]] = {
    "plain": {}, "clock": {}, "small": {"engine": {"pages": SMALL_PAGES}},
    "keyed": {"settings": {"keys": ["a-long-key"]}}, "few files": {"files": faults_ends.FEW_FILES},
    "command": {"command": True}, "piped": {"command": True, "piped": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[Fault, str]]]:
    """What happened, printed in the end."""
    rows: list[tuple[Fault, str]] = []
    yield rows
    print("\n\n| fault | must | happened |\n|---|---|---|")
    for one, happened in rows:
        print(f"| {one.name} | {one.must} | {happened} |")


@pytest.fixture(scope="module")
def at(start: Callable[..., Server]) -> Callable[[Fault], tuple[Server, str]]:
    """The server that a fault is for, and what it answers while all is well."""
    running: dict[str, tuple[Server, str]] = {}

    def server_of(one: Fault) -> tuple[Server, str]:
        if one.server == "own":
            return start(**one.words), ""
        if one.server not in running or running[one.server][0].process.poll() is not None:
            server = start(**SERVERS[one.server])
            running[one.server] = server, whole(server, {"prompt": "Mia had", "max_tokens": 12})
        return running[one.server]

    return server_of


def test_there_are_many() -> None:
    assert len({one.name for one in KNOWN}) == len(KNOWN) >= 50
    assert {one.act.__module__ for one in KNOWN} == {
        module.__name__ for module in (faults_clients, faults_engine, faults_ends)
    }


@pytest.mark.timeout(180)
@pytest.mark.parametrize("one", QUICK, ids=lambda one: one.name)
def test_a_fault_is_endured(at: Any, one: Fault) -> None:
    endure(one, *at(one))


@pytest.mark.soak
@pytest.mark.timeout(180)
@pytest.mark.parametrize("one", KNOWN, ids=lambda one: one.name)
def test_all_faults_are_endured(at: Any, table: list[tuple[Fault, str]], one: Fault) -> None:
    table.append((one, "it failed"))
    table[-1] = one, endure(one, *at(one))
