"""Every option of sampling against a slow form of it, and what no option may ever let through."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fathom.engine.draws import Distribution
from fathom.engine.request import RequestError, SamplingParams
from fathom.engine.sample import Chooser, NoTokenError

PADDING = 3  # rows of the vocabulary that no token has
PROMPT = (0, 1, 1, 4)


def chooser(tokens: int, *, written: tuple[int, ...] = (), **options: Any) -> Chooser:
    chooser = Chooser(SamplingParams(**options), PROMPT, 7, 0, tokens)
    for token in written:
        chooser.note(token)
    return chooser


def row(*logits: float) -> Tensor:
    return torch.tensor([*logits, *[1e4] * PADDING])


def table(p: Distribution) -> dict[int, float]:
    assert p.ids.dtype == np.int64 and p.prob.dtype == np.float64
    assert (np.diff(p.ids) > 0).all() and (p.prob > 0).all()
    assert p.prob.sum() == pytest.approx(1, abs=1e-12)
    return dict(zip(p.ids.tolist(), p.prob.tolist(), strict=True))


def after(
    *logits: float, written: tuple[int, ...] = (), allowed: Any = None, **options: Any
) -> dict[int, float]:
    mask = None if allowed is None else np.array(allowed, dtype=bool)
    return table(chooser(len(logits), written=written, **options).distribution(row(*logits), mask))


def softmax(logits: dict[int, float]) -> dict[int, float]:
    total = sum(math.exp(x) for x in logits.values())
    return {i: math.exp(x) / total for i, x in logits.items()}


def slow(
    logits: list[float], allowed: list[bool], written: tuple[int, ...], o: SamplingParams
) -> dict[int, float]:
    """The options in their order. Cases where rounding decides at a border are left out."""
    x = {i: logit + o.logit_bias.get(i, 0.0) for i, logit in enumerate(logits) if allowed[i]}
    x = {i: logit for i, logit in x.items() if logit > -math.inf}
    for i in x.keys() & {*PROMPT, *written}:
        x[i] = x[i] / o.repetition_penalty if x[i] > 0 else x[i] * o.repetition_penalty
    for i in x.keys() & set(written):
        x[i] -= o.frequency_penalty * written.count(i) + o.presence_penalty
    order = sorted(x, key=lambda i: (-x[i], i))
    if o.temperature == 0 or not x:
        return {order[0]: 1.0} if x else {}
    p = {i: math.exp((x[i] - x[order[0]]) / o.temperature) for i in order}
    order = order[: o.top_k or None]
    goal, held, kept = o.top_p * sum(p[i] for i in order), 0.0, []
    for i in order:
        kept.append(i)
        held += p[i]
        assume(o.top_p == 1 or abs(held - goal) > 1e-5 * goal)
        if held >= goal and o.top_p < 1:
            break
    assume(all(o.min_p == 0 or abs(p[i] - o.min_p) > 1e-5 for i in kept if i != order[0] and p[i] < 1))
    kept = [i for i in kept if p[i] >= o.min_p]
    return {i: p[i] / sum(p[j] for j in kept) for i in sorted(kept)}


options = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 2.5]),
        "top_p": st.sampled_from([0.1, 0.5, 0.77, 0.95, 1.0]),
        "top_k": st.integers(0, 12),
        "min_p": st.sampled_from([0.0, 0.05, 0.5, 1.0]),
        "presence_penalty": st.sampled_from([-1.0, 0.7]),
        "frequency_penalty": st.sampled_from([-0.5, 0.4]),
        "repetition_penalty": st.sampled_from([0.5, 1.3]),
        "logit_bias": st.dictionaries(st.integers(0, 4), st.sampled_from([-math.inf, -2.0, 0.25, 3.0])),
    },
)


@settings(max_examples=600, deadline=None)
@given(st.data(), st.lists(st.integers(-16, 16), min_size=5, max_size=40), options)
def test_any_combination_is_what_the_slow_form_says(
    data: st.DataObject, quarters: list[int], given: Any
) -> None:
    """Logits are quarters, so that many tie."""
    logits, count = [x / 4 for x in quarters], len(quarters)
    allowed = data.draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count))
    written = tuple(data.draw(st.lists(st.integers(0, count - 1), max_size=6)))
    split = data.draw(st.integers(0, len(written)))
    expected = slow(logits, allowed or [True] * count, written, SamplingParams(**given))
    c = chooser(count, written=written[:split], **given)
    mask = None if allowed is None else np.array(allowed)
    if not expected:
        with pytest.raises(NoTokenError, match=r"allow no token\. Fix: "):
            c.distribution(row(*logits), mask, written[split:])
        return
    assert table(c.distribution(row(*logits), mask, written[split:])) == pytest.approx(expected, rel=1e-5)
    for token in written[split:]:
        c.note(token)
    assert table(c.distribution(row(*logits), mask)) == pytest.approx(expected, rel=1e-5)


def test_temperature() -> None:
    logits = {0: 1.0, 1: 0.0, 2: -2.0}
    assert after(*logits.values()) == pytest.approx(softmax(logits))
    twice = {i: 2 * x for i, x in logits.items()}
    assert after(*logits.values(), temperature=0.5) == pytest.approx(softmax(twice))
    assert after(1.0, 3.0, 3.0, temperature=0.0) == {1: 1.0}
    assert after(1.0, 3.0, 2.9, temperature=5e-324) == {1: 1.0}
    assert after(3e38, -3e38, temperature=1e-300) == {0: 1.0}


def test_the_border_of_top_k_and_top_p_takes_the_lower_id() -> None:
    assert set(after(1.0, 2.0, 1.0, 2.0, 1.0, top_k=3)) == {0, 1, 3}
    assert set(after(0.0, 0.0, 0.0, 0.0, top_k=1)) == {0}
    assert set(after(0.0, 0.0, 0.0, 0.0, top_k=9)) == {0, 1, 2, 3}
    assert set(after(0.0, 0.0, 0.0, 0.0, top_p=0.5)) == {0, 1}
    assert set(after(0.0, 0.0, 0.0, 0.0, top_p=0.51)) == {0, 1, 2}
    assert set(after(0.0, 9.0, 0.0, 0.0, top_p=1e-9)) == {1}


def test_top_p_looks_at_what_top_k_left() -> None:
    logits = [math.log(x) for x in (0.4, 0.3, 0.2, 0.1)]
    assert set(after(*logits, top_p=0.6)) == {0, 1}
    assert after(*logits, top_k=3, top_p=0.6, min_p=0.8) == pytest.approx({0: 1.0})
    assert set(after(*logits, top_k=2, top_p=0.55)) == {0}  # 0.4 of 0.7


@pytest.mark.parametrize("size", [300, 3000])
@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0])
def test_top_p_holds_its_share_and_no_token_less(size: int, spread: float) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size)) * spread
    whole = torch.softmax(logits.double(), 0)
    for top_p in (0.01, 0.5, 0.9, 0.999, 1 - 1e-9):
        p = Chooser(SamplingParams(top_p=top_p), (), 0, 0, size).distribution(logits)
        held = whole[torch.from_numpy(p.ids)]
        assert held.sum() >= top_p - 1e-7
        assert held.sum() - held.min() < top_p + 1e-7
        rest = np.delete(whole.numpy(), p.ids)
        assert held.min() >= rest.max(initial=0.0)


def test_penalties_look_at_what_they_say() -> None:
    logits, written = (2.0, -2.0, 2.0, -2.0, 0.5), (2, 3, 3)
    only = {"temperature": 1.0, "written": written}
    assert after(*logits, presence_penalty=1.5, **only) == pytest.approx(
        softmax({0: 2.0, 1: -2.0, 2: 0.5, 3: -3.5, 4: 0.5})
    )
    assert after(*logits, frequency_penalty=1.5, **only) == pytest.approx(
        softmax({0: 2.0, 1: -2.0, 2: 0.5, 3: -5.0, 4: 0.5})
    )
    assert after(*logits, repetition_penalty=2.0, **only) == pytest.approx(  # 0, 1 and 4 are in the prompt
        softmax({0: 1.0, 1: -4.0, 2: 1.0, 3: -4.0, 4: 0.25})
    )


def test_bias_adds_forbids_and_forces() -> None:
    assert after(1.0, 2.0, 3.0, logit_bias={0: 2.0}) == pytest.approx(softmax({0: 3.0, 1: 2.0, 2: 3.0}))
    assert after(1.0, 2.0, 3.0, logit_bias={2: -math.inf}) == pytest.approx(softmax({0: 1.0, 1: 2.0}))
    forced = {0: math.inf, 1: math.inf, 2: 100.0}
    assert after(1.0, 2.0, 3.0, logit_bias=forced) == pytest.approx(softmax({0: 1.0, 1: 2.0}))
    assert after(1.0, 2.0, temperature=0.0, logit_bias={0: 1e9}, repetition_penalty=1e-300) == {0: 1.0}
    with pytest.raises(NoTokenError, match=r"^[^\n]*allow no token\. Fix: [^\n]*$"):
        after(1.0, 2.0, logit_bias={0: -math.inf, 1: -math.inf})
    with pytest.raises(NoTokenError):
        after(1.0, 2.0, logit_bias={0: -math.inf}, allowed=[True, False])
    with pytest.raises(RequestError, match=r"^logit_bias names token \[2\]\. Fix: use ids from 0 to 1$"):
        after(1.0, 2.0, logit_bias={2: 1.0})


@pytest.mark.parametrize("bias", [math.nan, "1", 1e10, 10**400, True + 1j, None])
def test_a_bias_that_is_no_number_is_refused(bias: Any) -> None:
    with pytest.raises(RequestError, match=r"^logit_bias has 3: [^\n]*Fix: "):
        SamplingParams(logit_bias={3: bias})


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("given", [{}, {"temperature": 0.0}, {"top_p": 0.5, "logit_bias": {0: -math.inf}}])
def test_logits_that_are_no_numbers_are_one_clear_error(wrong: float, given: Any) -> None:
    c = chooser(3, **given)
    for logits in (row(wrong, 1.0, 2.0), row(1.0, 2.0, wrong), row(*[-math.inf] * 3)):
        with pytest.raises(NoTokenError, match=r"^the model's logits are not finite\. Fix: "):
            c.distribution(logits)
        with pytest.raises(NoTokenError):
            c.logprob(logits, 0)


@pytest.mark.parametrize("given", [{}, {"temperature": 50.0}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}])
@pytest.mark.parametrize("padding", [1e4, math.inf, math.nan])
def test_padding_is_never_drawn(given: Any, padding: float) -> None:
    c = chooser(5, **given)
    logits = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.1, *[padding] * 60])
    drawn = {c.draw(c.distribution(logits), n) for n in range(700)}  # 15 cases: above 10,000 draws
    assert drawn == set(range(5)) or given
    assert drawn <= set(range(5))
    assert c.logprob(logits, 2).logprob == pytest.approx(float(torch.log_softmax(logits[:5], 0)[2]), abs=1e-6)


def test_plain_is_argmax_and_nothing_else() -> None:
    assert chooser(5, temperature=0.0).plain
    assert chooser(5, temperature=0.0, top_p=0.5, top_k=3, min_p=0.1, seed=3, stop=("x",)).plain
    assert not chooser(5).plain
    for name, value in {
        "logprobs": 0, "logit_bias": {1: 0.0}, "presence_penalty": 0.1, "frequency_penalty": -0.1,
        "repetition_penalty": 1.1,
    }.items():  # fmt: skip
        assert not chooser(5, temperature=0.0, **{name: value}).plain, name


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=30))
def test_greedy_agrees_with_the_batched_argmax_on_ties(logits: list[int]) -> None:
    x = torch.tensor(logits, dtype=torch.float32)
    assert set(table(Chooser(SamplingParams(temperature=0.0), (), 0, 0, len(logits)).distribution(x))) == {
        int(x.argmax())
    }


def test_logprobs_are_the_models_own() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 5
    expected = torch.log_softmax(logits[:40].double(), 0)
    c = chooser(40, logprobs=4, temperature=0.2, logit_bias={3: 100.0}, repetition_penalty=2.0, written=(7,))
    for token in range(40):
        found = c.logprob(logits, token)
        assert found.token == token
        assert found.logprob == pytest.approx(float(expected[token]), abs=1e-6)
    top = torch.topk(expected, 4)
    assert [i for i, _ in found.top] == top.indices.tolist()
    assert [x for _, x in found.top] == pytest.approx(top.values.tolist(), abs=1e-6)
    assert [i for i, _ in c.logprob(torch.zeros(50), 0).top] == [0, 1, 2, 3]
    assert chooser(40, logprobs=0).logprob(logits, 1).top == ()
    assert len(Chooser(SamplingParams(logprobs=20), (), 0, 0, 3).logprob(logits, 1).top) == 3


@pytest.mark.parametrize(
    "given", [{}, {"top_p": 0.9, "temperature": 0.7}, {"top_k": 7, "repetition_penalty": 1.2}]
)
def test_a_row_means_the_same_bits_in_any_company(given: Any) -> None:
    """Alone or in a batch, behind padding or not, as often as it is asked; and it is left as it was."""
    batch_BV = torch.randn(17, 203, generator=torch.Generator().manual_seed(1)) * 4
    before = batch_BV.clone()
    for n, logit_V in enumerate(batch_BV):
        expected = chooser(200, **given).distribution(logit_V[:200].clone())
        c = chooser(200, **given)
        for _ in range(2):
            found = c.distribution(logit_V)
            assert found.ids.tobytes() == expected.ids.tobytes()
            assert found.prob.tobytes() == expected.prob.tobytes()
        assert c.draw(found, n) == chooser(200).draw(expected, n)
    assert torch.equal(batch_BV, before)


def test_a_row_that_is_float64_already_is_left_as_it_was() -> None:
    logits = torch.arange(4, dtype=torch.float64)
    chooser(4, logit_bias={1: 5.0}, repetition_penalty=2.0).distribution(logits)
    assert logits.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_the_row_of_a_bf16_model_will_do() -> None:
    logits = torch.tensor([1.0, 0.5, -2.0, 9.0], dtype=torch.bfloat16, requires_grad=True)
    assert table(chooser(3).distribution(logits)) == pytest.approx(softmax({0: 1.0, 1: 0.5, 2: -2.0}))


def test_answers_to_one_prompt_differ_and_repeat() -> None:
    logits = torch.zeros(1000)
    params = SamplingParams(seed=3, n=4)

    def answers() -> list[list[int]]:
        choosers = [Chooser(params, (), 3, index, 1000) for index in range(4)]
        return [[c.draw(c.distribution(logits), n) for n in range(20)] for c in choosers]

    assert answers() == answers()
    assert len({tuple(tokens) for tokens in answers()}) == 4
