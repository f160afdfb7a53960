"""Answers of a given form through the whole engine, with drafts and without."""

from __future__ import annotations

import json
import re

import pytest
import torch

from fathom.engine import grammar as grammars
from fathom.engine.answer import Answer
from fathom.engine.grammar import Matcher, compile_grammar
from fathom.engine.request import Request, RequestError, SamplingParams
from fathom.engine.sample import Chooser, NoTokenError
from fathom.engine.sequence import Sequence

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


WIDE = "(?s:.*[a-m].{30}[n-z].*)x"  # every letter is a new state of its automaton


def test_an_answer_too_complex_to_go_on_ends_where_it_would_without_drafts(trained, monkeypatch):
    monkeypatch.setattr(grammars, "LIMITS", grammars.LIMITS | {"max_lexer_states": 1500})
    asked = {"regex": WIDE, "temperature": 1.5, "seed": 3, "max_tokens": 60}
    plain = run(trained.engine(speculate="off"), **asked)
    engine = trained.engine(speculate="on", draft_tokens=3)
    assert run(engine, **asked) == run(engine, **asked) == plain
    assert "error" in {reason for *_, reason in plain}
    for text, tokens, _ in plain:
        assert tokens and text == trained.tokenizer.decode(list(tokens))
    assert not engine.busy and engine.generate(["Mia"])


@pytest.mark.parametrize("speculate", ["off", "on"])
def test_a_token_behind_which_the_form_gives_up_stays_written(trained, monkeypatch, speculate):
    advance, matchers = Matcher.advance, list[Matcher]()

    def gives_up(matcher, token):
        advance(matcher, token)
        if matcher not in matchers:
            matchers.append(matcher)
        if matcher is matchers[0] and matcher.ended:  # the answer's own: it steps before any look ahead
            raise NoTokenError("too complex. Fix: ask for less")

    asked = {"regex": "Mia has [1-9] kites", "seed": 1, "n": 1}
    ((text, tokens, reason),) = run(trained.engine(speculate=speculate), **asked)
    monkeypatch.setattr(Matcher, "advance", gives_up)
    engine = trained.engine(speculate=speculate, draft_tokens=2)
    assert reason == "stop" and run(engine, **asked) == [(text, tokens, "error")]
    assert not engine.busy


@pytest.mark.parametrize("place", ["advance", "allowed"])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_look_ahead_that_fails_costs_the_answer_nothing(trained, monkeypatch, place, after):
    asked = {"regex": REGEX, "seed": 2, "temperature": 1.3, "n": 1}
    plain = run(trained.engine(speculate="off"), **asked)
    calls = list[object]()

    class Failing(Matcher):
        pass

    def fails(*args):
        calls.append(args)
        if len(calls) > after:
            raise NoTokenError("too complex. Fix: ask for less")
        return getattr(Matcher, place)(*args)

    setattr(Failing, place, fails)
    monkeypatch.setattr(Matcher, "anew", lambda m: Failing(m._build, m._eos, m._tokens))
    assert run(trained.engine(speculate="on", draft_tokens=3), **asked) == plain
    assert len(calls) > after


ENDS = [([], (1, 0)), (["a"], (2, 1)), (["a", None], (2, 2)), ([None], (1, 0))]


@pytest.mark.parametrize(("drafts", "used"), ENDS)
def test_an_end_of_text_that_was_guessed_is_a_draft_that_stood(trained, drafts, used):
    params, tokenizer = SamplingParams(regex="a", seed=1), trained.tokenizer
    (a,) = tokenizer.encode("a")
    sequence = Sequence(0, 0, "", (a,), params, 99)
    sequence.drafts = [a if draft else tokenizer.eos for draft in drafts]
    chooser = Chooser(params, [a], 1, 0, tokenizer.size)
    answer = Answer(sequence, chooser, compile_grammar(params, tokenizer).matcher(), tokenizer)
    assert answer.choose(torch.zeros(len(drafts) + 1, tokenizer.size), [0] * (len(drafts) + 1)) == used
    assert sequence.output == [a]
    assert answer.finish_reason == ("stop" if used[0] == 2 else None)


FORMLESS = [{"regex": "("}, {"json_schema": "{"}, {"json_schema": {"type": "king"}}]


@pytest.mark.parametrize("form", FORMLESS, ids=str)
def test_a_form_that_is_none_is_refused_at_submission(trained, form):
    engine = trained.engine()
    with pytest.raises(RequestError, match="Fix: ") as caught:
        engine.submit(Request(text="x", sampling=SamplingParams(**form)))
    assert "\n" not in str(caught.value) and not engine.busy
