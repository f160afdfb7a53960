"""Requests that schemathesis makes of an OpenAPI document, to a real server: right ones and wrong ones.

    python -m pytest -m soak -k ten_thousand_requests -s
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from soak_openapi import bodies, document
from soak_server import PATIENCE, Server, files_of, until

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENGINE = {"pages": 3}       # of 16 positions: an answer without max_tokens is as long as they allow
LIMITS = {"header_seconds": 10.0, "body_seconds": 10.0, "write_seconds": 20.0}
SHORT, LONG = 12, 1120      # requests of each route, right ones and wrong ones each
QUIET = settings(
    deadline=None, suppress_health_check=list(HealthCheck), database=None,
    phases=[Phase.generate, Phase.shrink],
)


@pytest.fixture(scope="module")
def server(start: Any) -> Iterator[Server]:
    yield start(engine=ENGINE, settings=LIMITS)


@pytest.fixture(scope="module")
def operations(server: Server) -> list[Any]:
    info = server.get("/fathom/info").json()
    schema = schemathesis.openapi.from_dict(document(info["context"], info["vocabulary"]))
    schema.config.update(base_url=f"http://127.0.0.1:{server.port}")
    return [one.ok() for one in schema.get_all_operations()]


def send(server: Server, operations: list[Any], count: int) -> Counter[tuple[str, str, int]]:
    """So many of each route and kind; how often each status came."""
    happened: Counter[tuple[str, str, int]] = Counter()
    for operation in operations:
        modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
        for mode in modes if operation.method == "post" else modes[:1]:     # nothing of a GET can be wrong
            with requests.Session() as session:
                happened += send_all(operation, mode, session, count)
    return happened


def send_all(operation: Any, mode: Any, session: Any, count: int) -> Counter[tuple[str, str, int]]:
    happened: Counter[tuple[str, str, int]] = Counter()

    @settings(QUIET, max_examples=count, derandomize=count == SHORT)
    @given(case=operation.as_strategy(generation_mode=mode))
    def sent(case: Any) -> None:
        answer = case.call(session=session, timeout=PATIENCE)
        happened[case.path, mode.value, answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    sent()
    return happened


def run(server: Server, operations: list[Any], count: int) -> None:
    files, engine = files_of(server.pid), server.engine
    happened = send(server, operations, count)
    until(server.idle, what="rest")
    print(f"\n{happened.total()} requests")
    for (path, mode, status), number in sorted(happened.items()):
        print(f"{path} {mode} {status}: {number}")
    assert server.engine == engine and not server.faults(), server.faults()
    until(lambda: files_of(server.pid) <= files, what=f"the {files} open files of before,")
    for path in bodies(1, 1):
        assert happened[path, "positive", 200] > 0, f"no request to {path} was right"
        assert happened[path, "negative", 400] > 0, f"no request to {path} was wrong"
    assert "Traceback" not in server.said, server.said


def test_requests_of_a_schema(server: Server, operations: list[Any]) -> None:
    run(server, operations, SHORT)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ten_thousand_requests_of_a_schema(server: Server, operations: list[Any]) -> None:
    run(server, operations, LONG)
