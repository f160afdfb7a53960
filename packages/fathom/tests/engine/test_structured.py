"""Answers of a given form through the whole engine, with drafts and without."""

from __future__ import annotations

import json
import re

import pytest

from fathom.engine.request import Request, RequestError, SamplingParams

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["Mia", "Leo", "Ben"]},
        "age": {"type": "integer", "minimum": 1, "maximum": 9},
        "has": {"type": "array", "items": {"enum": ["kite", "boat", "ball"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "has"],
    "additionalProperties": False,
}
REGEX = r"(Mia|Leo|Ben) has [1-9][0-9]{0,2} (kites|boats)\."


def run(engine, **sampling: object) -> list[tuple[str, tuple[int, ...], str]]:
    params = SamplingParams(**{"max_tokens": 120, "n": 6} | sampling)
    completions = engine.generate([Request(text="Who has what?", sampling=params)])[0].completions
    return [(c.text, c.tokens, c.finish_reason) for c in completions]


@pytest.mark.parametrize("drawn", [{"temperature": 0.0, "n": 1}, {"seed": 4, "temperature": 1.2}], ids=str)
def test_json_is_of_its_schema_and_the_same_with_drafts(trained, drawn):
    drafting = trained.engine(speculate="on", draft_tokens=3)
    plain = run(trained.engine(speculate="off"), json_schema=SCHEMA, **drawn)
    assert run(drafting, json_schema=SCHEMA, **drawn) == plain
    for text, _, reason in plain:
        value = json.loads(text)
        assert reason == "stop" and set(value) == {"name", "age", "has"}
        assert value["name"] in ("Mia", "Leo", "Ben") and 1 <= value["age"] <= 9
        assert 1 <= len(value["has"]) <= 3 and set(value["has"]) <= {"kite", "boat", "ball"}
    # inside an enum there is but one way on, and a draft under the grammar takes it
    assert drafting.stats.accepted > 5 * len(plain)


def test_without_a_seed_the_form_holds_too(trained):
    engine = trained.engine(speculate="on", draft_tokens=2)
    for text, _, reason in run(engine, regex=REGEX, temperature=1.5, n=20):
        assert reason == "stop" and re.fullmatch(REGEX, text), text
    assert engine.stats.accepted > 0


def test_a_form_is_kept_up_to_where_the_answer_is_cut(trained):
    for text, tokens, reason in run(trained.engine(), regex=r"(ab)*", ignore_eos=True, max_tokens=9, seed=1):
        if reason == "length":
            assert len(tokens) == 9
        assert re.fullmatch(r"(ab)*a?", text)


def test_a_form_and_a_bias_that_leave_no_token_end_with_an_error(trained):
    engine = trained.engine(speculate="on")
    size = trained.tokenizer.size
    bias = dict.fromkeys(range(size), float("-inf")) | {trained.tokenizer.encode("z")[0]: 0.0}
    (text, tokens, reason), = run(engine, regex="[0-9]+", logit_bias=bias, n=1)
    assert (text, tokens, reason) == ("", (), "error")
    assert not engine.busy and engine.generate(["Mia"])


FORMLESS = [{"regex": "("}, {"json_schema": "{"}, {"json_schema": {"type": "king"}}]


@pytest.mark.parametrize("form", FORMLESS, ids=str)
def test_a_form_that_is_none_is_refused_at_submission(trained, form):
    engine = trained.engine()
    with pytest.raises(RequestError, match="Fix: ") as caught:
        engine.submit(Request(text="x", sampling=SamplingParams(**form)))
    assert "\n" not in str(caught.value) and not engine.busy
