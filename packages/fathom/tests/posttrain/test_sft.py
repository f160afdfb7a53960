"""Fine-tuning changes what the assistant says, keeps the tokenizer, and resumes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fathom.checkpoint.find import latest
from fathom.checkpoint.load import load_checkpoint, load_model_state
from fathom.checkpoint.save import save_model
from fathom.config.data import DataConfig
from fathom.config.errors import ConfigError, DataError
from fathom.config.load import load_recipe
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig
from fathom.config.recipe import Recipe
from fathom.config.train import ScheduleConfig, TrainConfig
from fathom.data.batch import pack_chats
from fathom.data.conversations import open_conversations
from fathom.posttrain.sft import ChatRows, start_sft
from fathom.train.start import start

CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"What is {i}?"},
            {"role": "assistant", "content": f"{i} is a number."},
        ]
    }
    for i in range(40)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A pre-trained run of two steps."""
    folder = tmp_path_factory.mktemp("base")
    model = ModelConfig(
        vocab_size=400, hidden_size=32, num_layers=2, dense_layers=1, dense_size=48,
        max_positions=128, init_std=0.1,
        attention=AttentionConfig(num_heads=2, q_rank=16, kv_rank=16, nope_head=8, rope_head=8, value_head=8),
        moe=MoEConfig(num_experts=4, experts_per_token=2, num_groups=2, groups_per_token=1, expert_size=16),
    )  # fmt: skip
    data = DataConfig(documents=150, vocab_size=400, workers=1, held_out=0.1)
    train = TrainConfig(steps=2, seq_len=48, batch_size=2, precision="fp32")
    start(Recipe(model=model, data=data, train=train), folder, quiet=True).train()
    return folder


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in CHATS))
    train = TrainConfig(
        steps=6, lr=3e-3, seq_len=64, batch_size=2, precision="fp32", schedule=ScheduleConfig(warmup_steps=1)
    )
    return Recipe(data=DataConfig(sources=(str(file),)), train=train)


def test_fine_tuning_lowers_the_loss_on_replies_and_goes_on_bit_for_bit(base, recipe, tmp_path):
    longer = replace(recipe, train=replace(recipe.train, steps=30))
    start_sft(longer, base, tmp_path / "whole", quiet=True).train()
    first = start_sft(longer, base, tmp_path / "parts", quiet=True)
    early = [first.step() for _ in range(11)]
    first.save()
    second = start_sft(longer, base, tmp_path / "parts", resume=True, quiet=True)
    second.train()
    assert second.run.last["train/loss"] < early[0]["train/loss"] - 1.0
    whole, parts = (load_checkpoint(latest(tmp_path / n))[1] for n in ("whole", "parts"))
    assert all(torch.equal(whole[n], parts[n]) for n in whole)
    assert (latest(tmp_path / "whole") / "tokenizer.json").read_bytes() == (
        latest(base) / "tokenizer.json"
    ).read_bytes()


def test_the_record_says_where_the_settings_came_from(base, recipe, tmp_path):
    trainer = start_sft(recipe, base, tmp_path / "run", quiet=True, origin={"train.lr": "command line"})
    trainer.train()
    about = json.loads((tmp_path / "run" / "about.json").read_text())
    assert about["title"] == "sft" and about["origin"] == {"train.lr": "command line"}
    assert about["parameters"]["mtp"] > 0, "of the base's network"
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == ["saved"]


def test_packed_conversations_do_not_see_each_other(base, recipe, tmp_path):
    """What a row gives for its second conversation does not depend on its first."""
    trainer = start_sft(recipe, base, tmp_path / "run", quiet=True)
    assert trainer.config.mask_documents
    packed = trainer.data.packed
    row = int((packed.segment_BT1 >= 1).any(1).nonzero()[0])
    token, segment = packed.token_BT1[row : row + 1], packed.segment_BT1[row : row + 1]
    other = torch.where(segment == 0, (token + 1) % 300, token)
    before, after = (
        trainer.model.double()(t, segment_BT=segment, mask_documents=True).hidden_BTD for t in (token, other)
    )
    torch.testing.assert_close(before[segment >= 1], after[segment >= 1], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(before[segment == 0], after[segment == 0])


def test_rows_come_in_a_new_order_each_epoch_and_go_on_from_where_they_were():
    chats = [([5] * 9 + [i], [False] * 9 + [True]) for i in range(7)]
    packed = pack_chats(chats, 9, seed=0, pad=2)
    rows, again = ChatRows(packed, seed=3), ChatRows(packed, seed=3)
    first, second = (rows.next(7).token_BT1[:, -1].tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(7)) and first != second
    again.next(5)
    third = ChatRows(packed, seed=3)
    third.load_state_dict(again.state_dict())
    assert third.next(9).token_BT1[:, -1].tolist() == [*first[5:], *second]
    with pytest.raises(DataError, match="Fix: "):
        third.load_state_dict({"rows": 3, "drawn": 1})


def test_rows_may_hold_prompt_and_completion(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "Hi", "completion": "Hello."}\n')
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    assert list(open_conversations(str(file), DataConfig())) == [(f"{file}:1", messages)]


def test_a_message_that_cannot_be_used_names_file_and_line(base, recipe, tmp_path):
    file = tmp_path / "roles.jsonl"
    rows = ({"prompt": "Hi", "completion": "Hello."}, {"messages": [{"role": "king", "content": "x"}]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wrong = replace(recipe, data=replace(recipe.data, sources=(str(file),)))
    with pytest.raises(DataError, match=r"roles\.jsonl:2: .*king.*Fix: "):
        start_sft(wrong, base, tmp_path / "run", quiet=True)


def test_a_bf16_base_is_trained_with_fp32_masters(base, recipe, tmp_path):
    config, state = load_model_state(base)
    save_model(tmp_path / "half", state, config, tokenizer=latest(base), dtype=torch.bfloat16)
    trainer = start_sft(recipe, tmp_path / "half", tmp_path / "run", quiet=True)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_it_runs_in_fp8_too(base, recipe, tmp_path):
    narrow = replace(recipe, train=replace(recipe.train, precision="fp8"))
    tuner = start_sft(narrow, base, tmp_path / "8", quiet=True)
    tuner.train()
    assert tuner.machine.precision == "fp8" and tuner.machine.products.startswith("FP8")
    wide = start_sft(recipe, base, tmp_path / "32", quiet=True)
    wide.train()
    assert tuner.run.last["train/loss"] == pytest.approx(wide.run.last["train/loss"], rel=0.02)


@pytest.mark.parametrize(
    "row", ['{"text": "no chat"}', "[1]", "{}", '{"messages": "hello"}', '{"prompt": 1}']
)
def test_a_row_that_is_no_conversation_names_file_and_line(tmp_path, row):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "Hi", "completion": "Hello."}\n' + row + "\n")
    with pytest.raises(DataError, match=r"bad\.jsonl:2 .*Fix: "):
        list(open_conversations(str(file), DataConfig()))


def test_rows_longer_than_the_models_positions_are_refused(base, recipe, tmp_path):
    long = replace(recipe, train=replace(recipe.train, seq_len=4096))
    with pytest.raises(ConfigError, match=r"seq_len=4096 is above the 128 positions.*Fix: set it to 128"):
        start_sft(long, base, tmp_path / "run", quiet=True)


def test_the_packaged_recipe_builds():
    assert load_recipe("sft").recipe.train.lr > 0
