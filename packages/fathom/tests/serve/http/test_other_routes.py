"""Tokens, experts, the engine's own figures, and what Prometheus reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fathom.serve.page_files import MISSING, read_page


def test_tokenize(http: httpx.Client, link: Any) -> None:
    answer = http.post("/tokenize", json={"prompt": "hi", "return_token_strs": True}).json()
    assert answer == {
        "count": 3,
        "max_model_len": 512,
        "tokens": [0, 104, 105],
        "token_strs": ["<bos>", "h", "i"],
    }
    assert http.post("/tokenize", json={"prompt": "", "add_special_tokens": False}).json()["tokens"] == []
    messages = [{"role": "user", "content": "hi"}]
    assert http.post("/tokenize", json={"messages": messages}).json()["tokens"] == [0, 104, 105]


def test_experts(http: httpx.Client, link: Any) -> None:
    answer = http.post("/fathom/experts", json={"tokens": [1, 2]}).json()
    assert answer == {"layers": [1, 2], "experts": [[[1, 2], [3, 0]]] * 2}


def test_info(http: httpx.Client, link: Any) -> None:
    told = http.get("/fathom/info").json()
    assert told["experts"] == [0, 4, 4] and told["drafts"] is True and told["line"] == "played, on nothing"
    assert told["limits"]["messages"] == 2048 and told["limits"]["body_bytes"] == 2 << 20


def test_metrics_parse_and_count(serve: Any) -> None:
    one = serve()
    with httpx.Client(base_url=one.url) as http:
        http.post("/v1/completions", json={"prompt": [1, 2, 3], "max_tokens": 5})
        http.get("/secret-words")
        answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        s.name: s.value
        for f in text_string_to_metric_families(answer.text)
        for s in f.samples
        if not s.labels
    }
    assert found["fathom:time_to_first_token_seconds_count"] == 1
    assert found["fathom:inter_token_latency_seconds_count"] == 4
    assert found["fathom:prompt_tokens_total"] == 3 and found["fathom:generation_tokens_total"] == 5
    assert found["fathom:num_requests_running"] == 1 and found["fathom:num_requests_waiting"] == 0
    assert found["fathom:kv_cache_usage_perc"] == 0.25 and found["fathom:engine_up"] == 1
    assert found["fathom:prefix_cache_hits_total"] == 20 and found["fathom:prefix_cache_queries_total"] == 30
    assert found["fathom:spec_decode_acceptance_rate"] == 0.8
    assert (
        'http_requests_total{route="other",status="404"} 1.0' in answer.text and "secret" not in answer.text
    )


def test_the_page_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "a.js").write_text("1")
    (tmp_path / "secret.py").write_text("")
    (tmp_path / "folder").mkdir()
    files = read_page(tmp_path)
    assert set(files) == {"/", "/page/a.js"} and files["/"].content == b"<p>"
    assert read_page(tmp_path / "nothing")["/"].content == MISSING


def test_the_installed_page_is_served(http: httpx.Client) -> None:
    for path, file in read_page().items():
        answer = http.get(path)
        assert answer.status_code == 200 and answer.content == file.content
        assert answer.headers["content-type"] == file.kind


@pytest.mark.parametrize("name", ["", "spoken"])
def test_the_name_of_the_model(serve: Any, name: str) -> None:
    one = serve(name=name)
    answer = httpx.get(f"{one.url}/v1/models").json()
    assert [m["id"] for m in answer["data"]] == [name or "played"]
    body = {"prompt": "x", "model": name or "played"}
    assert httpx.post(f"{one.url}/v1/completions", json=body).json()["model"] == body["model"]
