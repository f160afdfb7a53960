"""lm-eval against a server: what it sends, answers as it reads them, and the model's own log-likelihoods.

    make test ARGS='-k lm_eval'                         its bodies and its parser, as they are in 0.4.13
    FATHOM_LM_EVAL=python make soak ARGS='-k lm_eval'   itself; that Python has lm_eval[api] and transformers
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from soak_server import TEXT, Server

from fathom.checkpoint.find import resolve
from fathom.checkpoint.load import load_model
from fathom.cli.main import main
from fathom.data.tokenizer import Tokenizer

SMALL = [
    "data.documents=120", "data.held_out=0.1", "data.workers=1", "train.steps=12", "train.seq_len=48",
    "model.hidden_size=32", "model.num_layers=2", "model.moe.num_experts=4", "model.max_positions=256",
]  # fmt: skip
AGREES = 1e-4       # natural log of a whole continuation's probability
STORIES = ["Mia had a red ball. She", "Once there was a cat", "Tom ran to the big tree, and then", "\n"]
ENDS = [" went home.", " was very sad", " saw a dog.\nThe dog said", " é 猫"]
UNTIL = ["\n\n", "Question:", "</s>", "<|im_end|>"]     # and the end of text: more than OpenAI's four


class Judge:
    """The model without engine and server."""

    def __init__(self, place: Path) -> None:
        self.place, self.model = resolve(place), load_model(place)
        self.tokenizer = Tokenizer.load(self.place)

    def pair(self, context: str, end: str) -> tuple[list[int], list[int]]:
        """As lm-eval cuts them: spaces belong to the end, tokens to where they begin."""
        bare = context.rstrip() if context.strip() else context
        whole, head = self.tokenizer.encode(context + end), self.tokenizer.encode(bare)
        return head, whole[len(head) :]

    @torch.inference_mode()
    def score(self, context: list[int], end: list[int]) -> tuple[float, bool]:
        """The end's log-likelihood, and whether each of its tokens is the likeliest."""
        ids = torch.tensor(context + end)
        log_TV = self.model.logits(ids[None])[0, :, : self.tokenizer.size].double().log_softmax(-1)
        log_EV = log_TV[len(context) - 1 : -1]
        told = log_EV.gather(1, ids[len(context) :, None])
        return float(told.sum()), bool((log_EV.argmax(-1) == ids[len(context) :]).all())

    @torch.inference_mode()
    def write(self, prompt: list[int], most: int, until: list[str]) -> str:
        """Greedily, until one of these texts begins."""
        ids = list(prompt)
        while len(ids) < len(prompt) + most:
            row_V = self.model.logits(torch.tensor([ids]))[0, -1, : self.tokenizer.size]
            ids.append(int(row_V.argmax()))
            if ids[-1] == self.tokenizer.eos:
                break
        text = self.tokenizer.decode([i for i in ids[len(prompt) :] if i != self.tokenizer.eos])
        return text[: min([text.find(one) for one in until if one in text], default=None)]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tmp_path_factory.mktemp("judged") / "run"
    assert main(["train", "tiny", *SMALL, "--out", str(folder), "--quiet"]) == 0
    return Judge(folder)


@pytest.fixture(scope="module")
def server(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    patient = {"header_seconds": 20.0, "body_seconds": 20.0, "write_seconds": 60.0}
    one = Server(judge.place, tmp_path_factory.mktemp("server"), settings=patient)
    yield one
    assert one.end() == 75
    one.kill()


def likelihoods(model: str, messages: list[Any]) -> dict[str, Any]:
    """lm_eval.models.openai_completions._create_payload, for log-likelihoods."""
    return {"model": model, "prompt": messages, "temperature": 0, "max_tokens": 1, "logprobs": 1,
            "seed": 1234, "echo": True}  # fmt: skip


def parsed(output: dict[str, Any], lengths: list[int]) -> list[tuple[float, bool]]:
    """lm_eval.models.openai_completions.parse_logprobs."""
    found = []
    for choice, length in zip(sorted(output["choices"], key=lambda one: one["index"]), lengths, strict=False):
        logs = choice["logprobs"]["token_logprobs"][length:-1]
        tops = choice["logprobs"]["top_logprobs"][length:-1]
        greedy = all(log == max(top.values()) for log, top in zip(logs, tops, strict=False))
        found.append((sum(logs), greedy))
    return found


def asked(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    told = server.post(TEXT, body)
    assert told.status == 200, told.body
    return told.json()


@pytest.fixture(scope="module")
def pairs(judge: Judge) -> list[tuple[list[int], list[int]]]:
    """Contexts and ends in ids; the last end is what the model itself would write."""
    found = [judge.pair(story, end) for story in STORIES for end in ENDS]
    context = judge.tokenizer.encode(STORIES[0])
    row = judge.model.logits(torch.tensor([context]))[0, -1, : judge.tokenizer.size]
    return [*found, (context, [int(row.argmax())])]


@pytest.mark.parametrize("batch", [1, 4, 17])
def test_lm_eval_reads_the_models_own_likelihoods(
    server: Server, judge: Judge, pairs: list[tuple[list[int], list[int]]], batch: int
) -> None:
    read: list[tuple[float, bool]] = []
    for at in range(0, len(pairs), batch):
        part = pairs[at : at + batch]
        answer = asked(server, likelihoods("tiny", [context + end for context, end in part]))
        assert len(answer["choices"]) == len(part) and answer["usage"]["completion_tokens"] == len(part)
        for choice, (context, end) in zip(answer["choices"], part, strict=True):
            assert {len(told) for told in choice["logprobs"].values()} == {len(context) + len(end) + 1}
        read += parsed(answer, [len(context) for context, _ in part])
    own = [judge.score(*pair) for pair in pairs]
    assert [greedy for _, greedy in read] == [greedy for _, greedy in own] and own[-1][1]
    assert max(abs(mine - theirs) for (mine, _), (theirs, _) in zip(own, read, strict=True)) < AGREES


def test_lm_eval_may_send_texts(server: Server, judge: Judge) -> None:
    """tokenized_requests=False. A text begins with the begin-of-text token, which is not told."""
    begin = [judge.tokenizer.bos]
    pairs = [judge.pair(story, ENDS[0]) for story in STORIES[:3]]
    texts = [judge.tokenizer.decode(context + end) for context, end in pairs]
    read = parsed(asked(server, likelihoods("tiny", texts)), [len(context) for context, _ in pairs])
    for (context, end), (theirs, _) in zip(pairs, read, strict=True):
        assert abs(judge.score(begin + context, end)[0] - theirs) < AGREES


def test_lm_eval_may_fill_the_context(server: Server, judge: Judge) -> None:
    """max_length = the context: it cuts prompts to one token less, for one is always written."""
    ids = (judge.tokenizer.encode(" ".join(STORIES)) * 20)[: judge.model.config.max_positions - 1]
    read = parsed(asked(server, likelihoods("tiny", [ids])), [len(ids) - 3])
    assert abs(judge.score(ids[:-3], ids[-3:])[0] - read[0][0]) < 10 * AGREES  # 255 positions of sums


@pytest.mark.parametrize("tokenized", [True, False])
def test_lm_eval_reads_what_the_model_writes(server: Server, judge: Judge, tokenized: bool) -> None:
    ids = [judge.tokenizer.encode(story) for story in STORIES]
    end = json.loads((judge.place / "tokenizer_config.json").read_text())["eos_token"]
    body = {"prompt": ids if tokenized else STORIES, "model": "tiny", "max_tokens": 24, "temperature": 0,
            "stop": [*UNTIL, end], "seed": 1234}  # fmt: skip
    choices = sorted(asked(server, body)["choices"], key=lambda one: one["index"])
    begin = [] if tokenized else [judge.tokenizer.bos]
    assert [one["text"] for one in choices] == [judge.write(begin + one, 24, UNTIL) for one in ids]


TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{text}}}}"
"""
CHOICE = "doc_to_target: answer\ndoc_to_choice: ends\nmetric_list: [{metric: acc}]\n"
TELL = f"""doc_to_target: "{{{{ends[0]}}}}"
generation_kwargs: {{until: {json.dumps(UNTIL)}, do_sample: false, temperature: 0.0, max_gen_toks: 24}}
metric_list: [{{metric: exact_match}}]
"""
WAYS = {
    "ids, four at a time": ("tokenizer={place}", 4, "choice,tell"),
    "texts, several at once": (
        "tokenizer={place},tokenized_requests=False,num_concurrent=3", 1, "choice,tell",
    ),
    "no tokenizer": ("tokenizer_backend=None", 2, "tell"),
}


def lm_eval() -> str:
    """A Python that has it, or a skip."""
    python = os.environ.get("FATHOM_LM_EVAL", sys.executable)
    code = "import lm_eval, transformers, aiohttp, tenacity"
    if subprocess.run([python, "-c", code], capture_output=True, check=False).returncode:
        pytest.skip("FATHOM_LM_EVAL names no Python with lm_eval[api] and transformers")
    return python


@pytest.mark.soak
@pytest.mark.parametrize("way", WAYS)
def test_lm_eval_itself(server: Server, judge: Judge, tmp_path: Path, way: str) -> None:
    words, batch, tasks = WAYS[way]
    ends = [end.strip() for end in ENDS]
    lines = [json.dumps({"text": story, "ends": ends, "answer": 0}) for story in STORIES[:3]]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    for name, kind, rest in (("choice", "multiple_choice", CHOICE), ("tell", "generate_until", TELL)):
        task = TASK.format(name=name, data=tmp_path / "data.jsonl", kind=kind)
        (tmp_path / f"{name}.yaml").write_text(task + rest)
    url = f"http://127.0.0.1:{server.port}{TEXT}"
    about = f"model=tiny,base_url={url},max_length=256,{words.format(place=judge.place)}"
    command = [lm_eval(), "-m", "lm_eval", "--model", "local-completions", "--model_args", about]
    more = ["--tasks", tasks, "--batch_size", str(batch), "--include_path", ".", "--output_path", "out",
            "--log_samples"]  # fmt: skip
    offline = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [*command, *more], cwd=tmp_path, env=os.environ | offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    begin = [] if way.startswith("ids") else [judge.tokenizer.bos]
    worst = [_check(judge, sample, begin) for file in tmp_path.glob("out/**/samples_*.jsonl")
             for sample in map(json.loads, file.read_text().splitlines())]  # fmt: skip
    assert len(worst) == 3 * len(tasks.split(","))
    print(f"lm-eval, {way}: {len(worst)} documents, the furthest log-likelihood off by {max(worst):.1e}")


def _check(judge: Judge, sample: dict[str, Any], begin: list[int]) -> float:
    """How far the furthest log-likelihood of a sample is from the model's own."""
    given = [tuple(one.values()) for _, one in sorted(sample["arguments"].items())]
    answers = [one[0] for one in sample["resps"]]
    if isinstance(given[0][1], dict):
        prompt = begin + judge.tokenizer.encode(given[0][0])
        assert answers == [judge.write(prompt, 24, UNTIL)]
        return 0.0
    far = 0.0
    for (context, end), (log, greedy) in zip(given, answers, strict=True):
        head, tail = judge.pair(context, end)
        own, best = judge.score(begin + head, tail)
        assert str(best) == str(greedy) and math.isclose(own, float(log), abs_tol=AGREES), (context, end)
        far = max(far, abs(own - float(log)))
    return far
