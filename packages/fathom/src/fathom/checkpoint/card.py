"""The README.md beside exported weights: a model card as the Hugging Face hub reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from fathom.checkpoint.fp8_blocks import Weights
from fathom.config.counts import count
from fathom.config.model import ModelConfig

FRONT = """\
---
# license: fill in an identifier of https://huggingface.co/docs/hub/repositories-licenses
library_name: transformers
pipeline_tag: text-generation
tags:
- deepseek_v3
- mixture-of-experts
- fathom{tags}
---"""
SUMMARY = """\
# {name}

A DeepSeek-V3 network of {total} parameters, of which {active} work on each token{mtp}. The weights are in
{weights}, {size:,.2f} GB, in the layout of the official release
([report](https://arxiv.org/abs/2412.19437)).{average}"""
AVERAGE = " They are the moving average of the weights over training."
FP8 = """\
The linear maps are in FP8 (E4M3), with an fp32 scale for each 128 x 128 block under the official name
`weight_scale_inv`; despite the name, a weight is its FP8 number times the scale. Blocks at the edge of a
matrix may be smaller. Everything else is in bf16, but for the routing bias, which is in fp32.

Computing in FP8 needs a GPU of compute capability 8.9 or above. For anything else, `fathom import hf . BF16`
writes a copy in bf16: where transformers (seen in 5.23) turns FP8 into bf16 by itself, it does not read
matrices with smaller blocks at the edge."""
LOADING = """\
## Loading it

In this folder, with [transformers](https://github.com/huggingface/transformers):

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".", dtype="auto")
{inputs}
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))
```

With fathom (`pip install fathom-lm`):

```sh
fathom {talk}
```"""
PROMPT = 'inputs = tokenizer("Once upon a time", return_tensors="pt")'
MESSAGE = """\
messages = [{"role": "user", "content": "Hello"}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)"""
MTP = """\
Multi-token prediction is stored behind the last layer, from layer {first} on. transformers passes over it;
engines that draft with it find it under the official names."""
LICENCE = """\
## Licence

To be filled in by whoever publishes these weights, here and as `license:` in the front matter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a card tells beside the network itself."""

    name: str  # of the folder
    weights: Weights
    nbytes: int
    chats: bool = False  # it has a chat template
    average: bool = False  # the weights are the run's moving average
    trainer: Mapping[str, Any] | None = None  # the checkpoint's state/trainer.json, if there is one


def model_card(config: ModelConfig, about: About) -> str:
    """README.md: front matter, what the model is, its shape, how to load it, how it was trained.

    The licence is left to whoever publishes it. A damaged or foreign `trainer` only makes the card shorter.
    """
    counts = count(config)
    tags = ("\n- conversational" if about.chats else "") + ("\n- fp8" if about.weights == "fp8" else "")
    summary = SUMMARY.format(
        name=_cell(about.name),
        total=_many(counts.total),
        active=_many(counts.active),
        mtp=f", and {_many(counts.mtp)} more in multi-token prediction" if counts.mtp else "",
        weights=about.weights,
        size=about.nbytes / 1e9,
        average=AVERAGE if about.average else "",
    )
    talk = "chat --model ." if about.chats else 'generate --model . --prompt "Once upon a time"'
    training = _training(about.trainer or {})
    parts = [
        FRONT.format(tags=tags),
        summary,
        *([FP8] if about.weights == "fp8" else []),
        f"## The network\n\n{_table(_shape(config))}",
        LOADING.format(inputs=MESSAGE if about.chats else PROMPT, talk=talk),
        *([MTP.format(first=config.num_layers)] if config.mtp.depth else []),
        *([f"## Training\n\n{_table(training)}"] if training else []),
        LICENCE,
    ]
    return "\n\n".join(parts) + "\n"


def _shape(config: ModelConfig) -> dict[str, str]:
    a, m, r, counts = config.attention, config.moe, config.rope, count(config)
    yarn = f", YaRN x{r.factor:g} from {r.original_positions:,}" if r.factor != 1 else ""
    query = f"queries {a.q_rank:,}" if a.q_rank else "queries not compressed"
    groups = f" from at most {m.groups_per_token} of {m.num_groups} groups" if m.num_groups > 1 else ""
    return {
        "parameters": f"{counts.total:,}",
        "of which work on a token": f"{counts.active:,}",
        "layers": f"{config.num_layers}, the first {config.dense_layers} dense",
        "width": f"{config.hidden_size:,}",
        "dense feed-forward": f"{config.dense_size:,}",
        "attention heads": f"{a.num_heads}, of {a.nope_head} + {a.rope_head} channels, values {a.value_head}",
        "latents": f"{query}, keys and values {a.kv_rank:,}",
        "cache per token": f"{counts.cache_elements_per_token:,} numbers",
        "experts": f"{m.num_experts} routed and {m.num_shared} shared, of width {m.expert_size:,}",
        "routing": f"{m.experts_per_token} experts{groups}, by {m.score}, times {m.route_scale:g}",
        "multi-token prediction": f"{config.mtp.depth} tokens ahead, {counts.mtp:,} parameters",
        "vocabulary": f"{config.vocab_size:,}",
        "positions": f"{config.max_positions:,}, RoPE base {r.theta:,.0f}{yarn}",
    }


def _training(trainer: Mapping[str, Any]) -> dict[str, str]:
    """What trainer.json knows."""
    recipe = _inner(trainer, "recipe")
    train, sources = _inner(recipe, "train"), _inner(recipe, "data").get("sources")
    rows = {
        "steps": _number(trainer.get("step")),
        "tokens": _number(trainer.get("tokens")),
        "hours": _number(trainer.get("elapsed_s"), 3600.0),
        "rows per step": _number(train.get("batch_size")),
        "tokens per row": _number(train.get("seq_len")),
        "largest learning rate": _number(train.get("lr")),
    }
    if isinstance(sources, list):
        tuned = "base" in _inner(trainer, "extra")  # what `fathom sft` notes
        rows["conversations, after pre-training" if tuned else "data"] = ", ".join(map(_source, sources))
    return {name: value for name, value in rows.items() if value}


def _inner(whole: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = whole.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _number(value: Any, unit: float | None = None) -> str:
    """Whole numbers in full, others to four figures; empty for what is no number."""
    if type(value) not in (int, float):
        return ""
    return f"{value:,}" if unit is None and type(value) is int else f"{value / (unit or 1.0):.4g}"


def _source(name: Any) -> str:
    """A source without the folders of the machine it lay on: they are nobody's business."""
    text = str(name)
    return f"`{_cell(text if text.startswith('hf:') else PurePath(text).name)}`"


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def _cell(text: str) -> str:
    """Text that ends no line, no cell of a table and no quotation."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line.replace("|", "\\|").replace("`", "'")


def _many(number: int) -> str:
    """671026419200 is 671B."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
