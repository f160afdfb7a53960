"""The engine as its callers meet it: answers, endings, refusals."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest
import torch

from fathom.config.engine import EngineConfig
from fathom.config.errors import ConfigError, DataError, FathomError
from fathom.config.model import MTPConfig
from fathom.engine.engine import Engine
from fathom.engine.request import BusyError, Request, RequestError, SamplingParams
from fathom.model.generate import generate
from fathom.model.transformer import Transformer

TEXT = "Mia had a red kite. One day"


def greedy(**more: object) -> SamplingParams:
    return SamplingParams(**{"temperature": 0.0, "max_tokens": 24} | more)


@pytest.fixture(scope="module")
def engine(trained) -> Engine:
    return trained.engine()


def plain_tokens(trained, prompt: list[int], count: int) -> list[int]:
    """What the model's own greedy loop writes, up to the end token."""
    tokenizer = trained.tokenizer
    drawn = generate(trained.model, torch.tensor([prompt]), max_tokens=count, tokens=tokenizer.size)
    tokens = [int(token) for token in drawn]
    return tokens[: tokens.index(tokenizer.eos)] if tokenizer.eos in tokens else tokens


def test_a_checkpoint_answers_as_the_models_own_loop_does(trained):
    engine = Engine(trained.folder, EngineConfig(device="cpu", pages=64))
    texts = [TEXT, "Leo", "The little house", "What does Ben have? " * 8]
    results = engine.generate([Request(text=t, sampling=greedy()) for t in texts])
    for text, result in zip(texts, results, strict=True):
        prompt = [trained.tokenizer.bos, *trained.tokenizer.encode(text)]
        tokens = plain_tokens(trained, prompt, 24)
        assert list(result.completions[0].tokens) == tokens
        assert result.text == trained.tokenizer.decode(tokens)
        assert result.prompt_tokens == len(prompt)


def test_a_text_alone_is_a_request(engine):
    assert engine.generate(["Mia"])[0].completions[0].finish_reason in ("stop", "length")


def test_results_come_in_the_order_of_requests_however_long_they_are(trained, engine):
    asked = [Request(tokens=[5 + i], sampling=greedy(max_tokens=30 - i, ignore_eos=True)) for i in range(30)]
    told: list[int] = []
    results = engine.generate(asked, told=told.append)
    assert [len(r.completions[0].tokens) for r in results] == [30 - i for i in range(30)]
    assert told == sorted(told) and told[-1] == 30


def test_length_and_end_of_text_end_an_answer(trained, engine):
    eos = trained.tokenizer.eos
    ends = SamplingParams(temperature=0, logit_bias={eos: 1000.0}, max_tokens=9)
    completion = engine.generate([Request(text=TEXT, sampling=ends)])[0].completions[0]
    assert (completion.finish_reason, completion.tokens, completion.text) == ("stop", (), "")
    goes_on = replace(ends, ignore_eos=True)
    completion = engine.generate([Request(text=TEXT, sampling=goes_on)])[0].completions[0]
    assert (completion.finish_reason, completion.tokens) == ("length", (eos,) * 9)


def test_without_max_tokens_an_answer_may_fill_the_context(trained):
    engine = trained.engine(pages=10, page_size=8)
    sampling = SamplingParams(temperature=0, ignore_eos=True)
    completion = engine.generate([Request(tokens=[5] * 3, sampling=sampling)])[0].completions[0]
    assert (len(completion.tokens), completion.finish_reason) == (77, "length")


@pytest.mark.parametrize("speculate", ["off", "on"])
def test_a_stop_string_cuts_the_text_before_it_wherever_tokens_end(trained, speculate):
    engine = trained.engine(speculate=speculate, draft_tokens=3)
    whole = engine.generate([Request(text=TEXT, sampling=greedy(ignore_eos=True))])[0].text
    for at in range(3, len(whole) - 4, 5):
        stop = whole[at : at + 4]
        sampling = greedy(ignore_eos=True, stop=("never in it", stop))
        completion = engine.generate([Request(text=TEXT, sampling=sampling)])[0].completions[0]
        assert completion.text == whole[: whole.index(stop)]
        assert completion.finish_reason == "stop"


def test_n_answers_share_the_prompts_pages_and_differ(trained):
    engine = trained.engine()
    sampling = SamplingParams(temperature=1.5, max_tokens=12, n=4, seed=3, ignore_eos=True)
    prompt = list(range(10, 80))
    result = engine.generate([Request(tokens=prompt, sampling=sampling)])[0]
    assert [c.index for c in result.completions] == [0, 1, 2, 3]
    assert len({c.tokens for c in result.completions}) == 4
    assert engine.scheduler.tree.hits == 3 * 64  # all but the last, partial page
    again = trained.engine(max_running=1).generate([Request(tokens=prompt, sampling=sampling)])[0]
    assert [c.tokens for c in again.completions] == [c.tokens for c in result.completions]


def test_logprobs_are_the_models_own(trained, engine):
    sampling = SamplingParams(temperature=0.7, seed=1, max_tokens=8, logprobs=3, ignore_eos=True, top_k=5)
    completion = engine.generate([Request(text=TEXT, sampling=sampling)])[0].completions[0]
    prompt = [trained.tokenizer.bos, *trained.tokenizer.encode(TEXT)]
    row = torch.tensor([[*prompt, *completion.tokens]])
    with torch.inference_mode():
        expected = trained.model.logits(row)[0, :, : trained.tokenizer.size].log_softmax(-1)
    assert len(completion.logprobs) == 8
    for i, entry in enumerate(completion.logprobs):
        at = expected[len(prompt) - 1 + i]
        assert entry.token == completion.tokens[i]
        assert entry.logprob == pytest.approx(float(at[entry.token]), abs=1e-4)
        assert [t for t, _ in entry.top] == at.topk(3).indices.tolist()


def test_padding_rows_of_the_vocabulary_are_never_written(trained):
    state = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    size = trained.tokenizer.size - 20
    state["head.weight"][size:] *= 100  # what a careless argmax would take
    trained.tokenizer.size, before = size, trained.tokenizer.size
    try:
        config = EngineConfig(pages=64, device="cpu")
        engine = Engine.of(trained.model.config, state, trained.tokenizer, config)
        drawn = SamplingParams(max_tokens=24, n=8, seed=0, ignore_eos=True)
        for sampling in (greedy(ignore_eos=True), drawn):
            for completion in engine.generate([Request(tokens=[5, 6, 7], sampling=sampling)])[0].completions:
                assert max(completion.tokens) < size
    finally:
        trained.tokenizer.size = before


def test_a_cancelled_request_ends_within_one_step_and_frees_its_pages(trained):
    engine = trained.engine(prefix_cache=False)
    free = engine.scheduler.pool.free
    ids = [engine.submit(Request(tokens=[5] * 40, sampling=greedy(max_tokens=50, n=2))) for _ in range(3)]
    for _ in range(4):
        engine.step()
    engine.cancel(ids[1])
    engine.cancel(ids[1])
    engine.cancel(999)
    deltas = engine.step()
    assert [d.index for d in deltas if d.request_id == ids[1] and d.finish_reason == "cancelled"] == [0, 1]
    for _ in range(3):
        assert not any(d.request_id == ids[1] for d in engine.step())
    for request_id in (ids[0], ids[2]):
        engine.cancel(request_id)
    engine.step()
    assert not engine.busy and engine.scheduler.pool.free == free


def test_a_waiting_request_can_be_cancelled(trained):
    engine = trained.engine(max_running=1)
    first = engine.submit(Request(tokens=[5] * 20, sampling=greedy()))
    second = engine.submit(Request(tokens=[6] * 20, sampling=greedy()))
    engine.step()
    engine.cancel(second)
    assert [d.finish_reason for d in engine.step() if d.request_id == second] == ["cancelled"]
    engine.cancel(first)
    engine.step()
    assert not engine.busy


def test_a_full_queue_refuses_in_one_line_and_generate_waits_instead(trained):
    engine = trained.engine(max_waiting=2)
    request = Request(tokens=[5] * 20, sampling=greedy(max_tokens=3))
    for _ in range(2):
        engine.submit(request)
    with pytest.raises(BusyError, match=r"Fix: "):
        engine.submit(request)
    while engine.busy:
        engine.step()
    assert len(engine.generate([request] * 20)) == 20


REFUSED = {
    "empty": (Request(tokens=[]), "prompt is empty"),
    "unknown id": (Request(tokens=[5, 100_000]), r"100000.*Fix: "),
    "negative id": (Request(tokens=[-1]), r"-1.*Fix: "),
    "not a number": (Request(tokens=["5"]), r"'5'.*Fix: "),
    "prompt too long": (Request(tokens=[5] * 600), "600 prompt tokens.*Fix: shorten"),
    "answer too long": (Request(tokens=[5] * 500, sampling=greedy(max_tokens=100)), "set max_tokens to 12"),
    "no messages": (Request(messages=[]), "Fix: "),
    "bad role": (Request(messages=[{"role": "king", "content": "hi"}]), "king.*Fix: "),
    "unknown bias": (Request(tokens=[5], sampling=greedy(logit_bias={4000: 1.0})), "4000.*Fix: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_never_be_served_is_refused_at_submission(engine, name):
    request, words = REFUSED[name]
    with pytest.raises(RequestError, match=words) as caught:
        engine.submit(request)
    assert "\n" not in str(caught.value) and not engine.busy


def test_a_request_that_no_number_of_free_pages_could_hold_is_refused(trained):
    engine = trained.engine(pages=4, page_size=8)
    with pytest.raises(RequestError, match=r"all pages of the cache.*Fix: .*more pages"):
        engine.submit(Request(tokens=[5] * 30, sampling=greedy(max_tokens=4)))
    assert engine.generate([Request(tokens=[5] * 28, sampling=greedy(ignore_eos=True, max_tokens=4))])


def test_speculation_without_a_module_or_an_engine_for_it_is_refused(trained):
    config = replace(trained.model.config, mtp=MTPConfig(depth=0))
    bare = Transformer(config, seed=0)
    with pytest.raises(ConfigError, match=r"no MTP module.*Fix: "):
        Engine.of(config, bare.state_dict(), trained.tokenizer, EngineConfig(speculate="on", device="cpu"))
    engine = Engine.of(config, bare.state_dict(), trained.tokenizer, EngineConfig(pages=8, device="cpu"))
    assert "no MTP module" in engine.line
    with pytest.raises(RequestError, match=r"no MTP module.*Fix: "):
        engine.submit(Request(tokens=[5], sampling=greedy(speculate=True)))
    with pytest.raises(RequestError, match=r"Fix: .*engine.speculate=auto"):
        trained.engine(speculate="off").submit(Request(tokens=[5], sampling=greedy(speculate=True)))


def test_a_cache_that_holds_not_one_page_is_refused(trained):
    with pytest.raises(ConfigError, match=r"one page.*Fix: "):
        trained.engine(pages=0, cache_gib=1e-9)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises((DataError, ConfigError), match="Fix: "):
        Engine(tmp_path)


def test_broken_weights_end_a_request_with_an_error_and_harm_no_other(trained):
    state = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    state["embed.weight"][7] = torch.nan
    config = EngineConfig(pages=12, page_size=8, device="cpu")
    engine = Engine.of(trained.model.config, state, trained.tokenizer, config)
    healthy = Request(tokens=[5] * 20, sampling=SamplingParams(seed=1, max_tokens=6, ignore_eos=True))
    expected = engine.generate([healthy])[0].completions
    for temperature in (1.0, 0.0, 0.5, 0.0, 1.0, 0.0):
        broken = Request(tokens=[7] * 20, sampling=SamplingParams(temperature=temperature, max_tokens=6))
        results = engine.generate([broken, healthy])
        ended = results[0].completions[0]
        assert ended.finish_reason == "error" and "Fix: " in ended.error
        assert results[1].completions == expected


def test_the_start_up_line_says_what_is_promised(engine):
    assert "fp32" in engine.line and "128 pages of 16 positions" in engine.line
    assert "the same bits in any company" in engine.line and "\n" not in engine.line


@pytest.mark.gpu
def test_on_a_gpu_the_engine_answers_as_the_model_does(trained):
    engine = trained.engine(device="cuda", precision="fp32", speculate="on")
    prompt = [trained.tokenizer.bos, *trained.tokenizer.encode(TEXT)]
    result = engine.generate([Request(tokens=prompt, sampling=greedy())])[0]
    assert list(result.completions[0].tokens) == plain_tokens(trained, prompt, 24)


def test_an_engine_keeps_a_copy_of_weights_it_was_given(trained):
    state = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    engine = Engine.of(trained.model.config, state, trained.tokenizer, EngineConfig(pages=16, device="cpu"))
    asked = [Request(text=TEXT, sampling=greedy())]
    before = engine.generate(asked)[0].completions
    for tensor in state.values():
        tensor.zero_()
    assert engine.generate(asked)[0].completions == before


def test_streams_give_what_generate_gives(trained):
    engine = trained.engine()
    asked = [Request(text=TEXT[:n], sampling=greedy(seed=n)) for n in range(3, 20)]
    expected = [result.text for result in trained.engine().generate(asked)]

    async def read(request: Request) -> str:
        return "".join([delta.text async for delta in engine.stream(request)])

    async def read_all() -> list[str]:
        return await asyncio.gather(*map(read, asked))

    try:
        assert asyncio.run(read_all()) == expected
        with pytest.raises(FathomError, match=r"streaming.*Fix: "):
            engine.generate(asked)
    finally:
        engine.close()
    assert [result.text for result in engine.generate(asked)] == expected


def test_a_stream_that_is_left_frees_its_pages(trained):
    engine = trained.engine(prefix_cache=False)
    free = engine.scheduler.pool.free

    async def taste() -> None:
        stream = engine.stream(Request(tokens=[5] * 40, sampling=greedy(max_tokens=200, ignore_eos=True)))
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(taste())
    engine.close()
    assert engine.scheduler.pool.free == free


def test_streams_of_two_threads_share_one_engine(trained):
    engine, texts = trained.engine(), []

    async def read(text: str) -> str:
        return "".join([d.text async for d in engine.stream(Request(text=text, sampling=greedy()))])

    threads = [threading.Thread(target=lambda: texts.append(asyncio.run(read(TEXT)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    assert texts == [engine.generate([Request(text=TEXT, sampling=greedy())])[0].text] * 6


def test_a_prompt_of_which_one_token_is_wanted_is_kept_for_the_next(trained):
    engine = trained.engine(speculate="off")
    scored = Request(tokens=list(range(5, 105)), sampling=greedy(max_tokens=1))
    assert [engine.generate([scored])[0].cached_tokens for _ in range(3)] == [0, 96, 96]


def test_requests_that_refuse_drafts_cost_none(trained):
    engine = trained.engine(speculate="auto")
    passes = []
    engine.runner._draft = lambda works, *rest, inner=engine.runner._draft: (  # type: ignore[method-assign]
        passes.append([w.kind for w in works]), inner(works, *rest))  # fmt: skip
    refuses = greedy(max_tokens=200, ignore_eos=True, speculate=False)
    engine.generate([Request(tokens=[5] * 8, sampling=refuses)] * 4)
    assert engine.stats.drafted == 0
    assert len(passes) <= 3 + 200 // 32 + 1  # the prompts, and now and then what was kept
