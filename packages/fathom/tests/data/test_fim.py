"""Fill in the middle: parts in the released order, cut between characters, each document by its own seed."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom.data.fim import encode_document, split_middle
from fathom.data.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the kite in the tree of the park"], 300)


@given(text=st.text(min_size=1), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_parts_make_the_text_and_the_middle_is_not_empty(text: str, seed: int):
    prefix, middle, suffix = split_middle(text, Random(seed))
    assert prefix + middle + suffix == text
    assert middle


@given(text=st.text(min_size=1), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_prefix_hole_suffix_middle_inside_bos_and_eos(tokenizer: Tokenizer, text: str, seed: int):
    ids = encode_document(tokenizer, text, rate=1.0, rng=Random(seed))
    begin, hole, end = (ids.index(tokenizer.special(name)) for name in ("fim_begin", "fim_hole", "fim_end"))
    assert ids[0] == tokenizer.bos and ids[-1] == tokenizer.eos and begin == 1 < hole < end
    prefix, suffix, middle = ids[2:hole], ids[hole + 1 : end], ids[end + 1 : -1]
    assert tokenizer.decode(prefix) + tokenizer.decode(middle) + tokenizer.decode(suffix) == text


def test_cuts_fall_inside_words(tokenizer: Tokenizer):
    cuts = {split_middle("the kite", Random(seed))[0] for seed in range(200)}
    assert cuts == {"the kite"[:n] for n in range(8)}


def test_the_share_of_documents_is_the_rate(tokenizer: Tokenizer):
    begin = tokenizer.special("fim_begin")
    done = sum(begin in encode_document(tokenizer, "the kite", rate=0.1, rng=Random(i)) for i in range(2000))
    assert 140 <= done <= 260, "10 % of 2000 within 4.5 standard deviations"


def test_a_document_depends_on_its_own_seed_alone(tokenizer: Tokenizer):
    one, two = (encode_document(tokenizer, "the kite", rate=0.5, rng=Random(7)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("text", ["", "the kite in the tree"])
def test_without_a_rate_a_document_is_bos_text_eos(tokenizer: Tokenizer, text: str):
    plain = [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
    assert encode_document(tokenizer, text) == plain
    assert encode_document(tokenizer, text, rate=0.0, rng=Random(0)) == plain
