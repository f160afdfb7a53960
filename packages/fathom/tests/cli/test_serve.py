"""`fathom serve`: what it refuses in one line, and a real model behind it from start to SIGTERM."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from fathom.cli.main import main


def problem(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["serve", *argv]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") <= 2 and "Traceback" not in said.err
    return said.err.splitlines()[-1]


@pytest.mark.parametrize(("argv", "says"), [
    (["--model", "no/such"], "--model no/such does not exist. Fix: "),
    (["--model", ".", "--host", "0.0.0.0"], "without a key would serve everybody .* Fix: add --api-key"),
    (["--model", ".", "--api-key", "short"], "API key is shorter than 8 .* Fix: "),
    (["--model", ".", "--port", "70000"], "--port 70000 is no port. Fix: "),
    (["--model", ".", "--queue", "0"], "--queue 0 is out of bounds. Fix: "),
    (["--model", ".", "--drain", "-1"], "--drain -1 is out of bounds. Fix: "),
    (["--model", ".", "--silence", "0"], "--silence 0 is out of bounds. Fix: "),
    (["--model", ".", "--max-context", "-1"], "engine.max_context=-1 .*Fix: "),
    (["--model", ".", "--host", "no.such.host.invalid", "--api-key", "long-enough"],
    "cannot be used .* Fix: "),
    (["--model", ".", "engine.pagez=1"], "Fix: .*engine.pages"),
    (["--model", ".", "engine.max_running=none"], "engine.max_running=.* Fix: "),
])  # fmt: skip
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], argv: list[str], says: str) -> None:
    assert re.search(says, problem(capsys, *argv))


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = problem(capsys, "--model", str(tmp_path), "--port", str(port))
    assert said == f"fathom: port {port} of 127.0.0.1 is taken. Fix: give another --port"


def test_without_its_libraries(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    own = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastapi" else own(name))
    assert "fastapi is not installed. Fix: pip install 'fathom-lm[serve]'" in problem(capsys, "--model", ".")


def test_a_folder_that_is_no_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "is no model" in problem(capsys, "--model", str(tmp_path), "--port", "0")


def test_the_server_needs_no_torch() -> None:
    code = "import sys, fathom.serve.run, fathom.serve.link; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_real_model_is_served(run: Path) -> None:
    command = [sys.executable, "-m", "fathom", "serve", "--model", str(run), "--port", "0", "engine.pages=16"]
    environment = os.environ | {"FATHOM_API_KEY": "a-long-key"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            said = ""
            while "API" not in said:
                line = process.stdout.readline()
                assert line, f"it ended: {said}"
                said += line
            url = re.search(r"API +(\S+)/v1", said)
            assert url is not None and "1 key" in said and "a-long-key" not in said
            talk(url[1])
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 75
        finally:
            process.kill()


def talk(url: str) -> None:
    """A few words with a real model, through OpenAI's client."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="a-long-key", max_retries=0) as client:
        model = client.models.list().data[0].id
        message = {"role": "user", "content": "Mia had"}
        answer = client.chat.completions.create(
            model=model, messages=[message], max_tokens=8, temperature=0, logprobs=True, top_logprobs=2,
            # type: ignore
        )  # fmt: skip
        assert answer.usage is not None and answer.usage.completion_tokens <= 8
        chunks = list(client.chat.completions.create(
            model=model, messages=[message], max_tokens=8, temperature=0, stream=True,  # type: ignore
            extra_body={"fathom_details": True, "ignore_eos": True},
        ))  # fmt: skip
        assert chunks[-1].choices[0].finish_reason == "length"
        text = client.completions.create(model=model, prompt="Mia", max_tokens=4, echo=True, temperature=0)
        assert text.choices[0].text.startswith("Mia")
        scored = client.completions.create(
            model=model, prompt="Mia had", max_tokens=1, echo=True, logprobs=1, temperature=0
        ).choices[0].logprobs
        assert scored is not None and scored.token_logprobs is not None and scored.tokens is not None
        assert "".join(scored.tokens).startswith("Mia had")
        assert all(log is not None and log < 0 for log in scored.token_logprobs)
    head = {"Authorization": "Bearer a-long-key"}
    with httpx.Client(base_url=url, headers=head, timeout=30) as http:
        ids = http.post("/tokenize", json={"prompt": "Mia had"}).json()["tokens"]
        assert len(http.post("/fathom/experts", json={"tokens": ids}).json()["experts"]) == len(ids)
        assert "fathom:kv_cache_usage_perc" in http.get("/metrics").text
        assert http.get("/").status_code == 200
    assert httpx.get(f"{url}/v1/models").status_code == 401
