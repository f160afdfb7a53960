"""Each delta tells which of its tokens were drafts that stood, and which drafts fell."""

from __future__ import annotations

import asyncio

import pytest

from fathom.engine.mailbox import Mailbox
from fathom.engine.request import Delta, Request, SamplingParams


def deltas(engine, asked: list[Request]) -> list[Delta]:
    for one in asked:
        engine.submit(one)
    told = []
    while engine.busy:
        told += engine.step()
    return told


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 0.8, "seed": 4}, {}])
def test_sums_are_those_of_the_stats(trained, depth, sampling):
    engine = trained.engine(speculate="on", draft_tokens=depth, page_size=8)
    params = SamplingParams(max_tokens=40, ignore_eos=True, n=2, **sampling)
    told = deltas(engine, [Request(text=f"Mia had {k}", sampling=params) for k in range(6)])
    accepted, rejected = sum(d.accepted for d in told), sum(len(d.rejected) for d in told)
    assert accepted == engine.stats.accepted > 20
    assert accepted + rejected == engine.stats.drafted
    for d in told:
        assert d.accepted <= len(d.tokens)
        if d.rejected:  # the token that took its place is another one
            assert len(d.tokens) == d.accepted + 1 and d.tokens[-1] != d.rejected[0]


@pytest.mark.parametrize("end", [{}, {"stop": ["e", "to"]}, {"regex": "[a-z ]{1,20}"}])
def test_at_the_ends_nothing_is_told_that_is_not_so(trained, end):
    pytest.importorskip("llguidance")
    engine = trained.engine(speculate="on", draft_tokens=3)
    params = SamplingParams(temperature=0.0, max_tokens=30, **end)
    told = deltas(engine, [Request(text=f"Leo has {k}", sampling=params) for k in range(12)])
    assert {d.finish_reason for d in told} > {None}
    for d in told:
        assert d.accepted <= len(d.tokens)
        if d.rejected and len(d.tokens) > d.accepted:
            assert d.tokens[d.accepted] != d.rejected[0]
    assert 0 < sum(d.accepted for d in told) <= engine.stats.accepted
    assert sum(d.accepted + len(d.rejected) for d in told) <= engine.stats.drafted


def test_without_drafts_there_is_nothing_to_tell(trained):
    told = deltas(trained.engine(speculate="off"), [Request(text="Mia had")])
    assert {(d.accepted, d.rejected) for d in told} == {(0, ())}


def test_a_slow_reader_still_learns_which_tokens_were_drafts():
    def delta(*tokens: int, accepted: int = 0, rejected: tuple[int, ...] = ()) -> Delta:
        return Delta(request_id=1, index=0, tokens=tokens, accepted=accepted, rejected=rejected)

    async def main() -> list[Delta]:
        box = Mailbox(Request(text="x"), asyncio.get_running_loop())
        for one in (delta(1), delta(2), delta(3, 4, accepted=1), delta(5), delta(6, rejected=(9,)), delta(7)):
            box.put(one)
        return await box.next()

    told = [(d.tokens, d.accepted, d.rejected) for d in asyncio.run(main())]
    assert told == [((1, 2), 0, ()), ((3, 4, 5), 1, ()), ((6, 7), 0, (9,))]
