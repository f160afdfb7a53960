"""One side of `engine.py`, in a process of its own: reads a wish, grants it, says how long it took.

    cd benchmarks; python -m inference.worker ours|peer bf16|fp32

A wish is JSON: {"batch", "prompt", "tokens"}: so many prompts of so many tokens, each continued
greedily by so many more. Weights are random, alike in size and scale on both sides; the network is
bench-small: 680.5 M parameters, of which a token multiplies by 162.5 M.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fathom.config.engine import EngineConfig
from fathom.config.model import AttentionConfig, ModelConfig, MoEConfig, MTPConfig
from fathom.engine.engine import Engine
from fathom.engine.request import Request, SamplingParams
from fathom.model.transformer import Transformer

BENCH_SMALL = ModelConfig(
    name="bench-small", vocab_size=32768, hidden_size=1024, num_layers=12, dense_layers=1, dense_size=2560,
    max_positions=4096, init_std=0.02, mtp=MTPConfig(depth=0),
    attention=AttentionConfig(
        num_heads=16, q_rank=384, kv_rank=256, nope_head=64, rope_head=32, value_head=64,
    ),
    moe=MoEConfig(
        num_experts=32, experts_per_token=4, num_groups=4, groups_per_token=2, expert_size=512,
    ),
)
Generate = Callable[[torch.Tensor, int], object]


class Letters:
    """A tokenizer for random ids: the engine asks for no more of it."""

    size, eos, bos, definition = BENCH_SMALL.vocab_size, -1, 0, ""

    @staticmethod
    def token_bytes(token: int) -> bytes:
        """One letter, whatever the token."""
        return b"x"


def ours(precision: str) -> Generate:
    """The engine as it comes, but for its prefix tree: random prompts share nothing."""
    state = dict(Transformer(BENCH_SMALL, seed=1).state_dict())
    config = EngineConfig(precision=precision, device="cpu", pages=256, prefix_cache=False)
    engine = Engine.of(BENCH_SMALL, state, Letters(), config)
    print(engine.line, file=sys.stderr)

    def generate(ids_BT: torch.Tensor, tokens: int) -> object:
        sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        return engine.generate([Request(tokens=ids, sampling=sampling) for ids in ids_BT.tolist()])

    return generate


def peer(precision: str) -> Generate:
    """transformers' generate as it comes: sdpa attention, grouped_mm experts, its own latent cache."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    c, a, m = BENCH_SMALL, BENCH_SMALL.attention, BENCH_SMALL.moe
    config = DeepseekV3Config(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.dense_size,
        moe_intermediate_size=m.expert_size, num_hidden_layers=c.num_layers, num_attention_heads=a.num_heads,
        num_key_value_heads=a.num_heads, n_shared_experts=1, n_routed_experts=m.num_experts,
        routed_scaling_factor=m.route_scale, kv_lora_rank=a.kv_rank, q_lora_rank=a.q_rank,
        qk_rope_head_dim=a.rope_head, qk_nope_head_dim=a.nope_head, v_head_dim=a.value_head,
        head_dim=a.rope_head, n_group=m.num_groups, topk_group=m.groups_per_token,
        num_experts_per_tok=m.experts_per_token, first_k_dense_replace=c.dense_layers,
        max_position_embeddings=c.max_positions, initializer_range=c.init_std,
    )
    model = DeepseekV3ForCausalLM(config).eval()
    model = model.to(torch.bfloat16 if precision == "bf16" else torch.float32)

    def generate(ids_BT: torch.Tensor, tokens: int) -> object:
        with torch.inference_mode():
            return model.generate(
                ids_BT, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0,
                eos_token_id=None,
            )

    return generate


def resident() -> int:
    """Bytes of memory in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Answer until stdin ends."""
    who, precision = sys.argv[1:]
    generate = {"ours": ours, "peer": peer}[who](precision)
    generator = torch.Generator().manual_seed(0)
    for line in sys.stdin:
        wish = json.loads(line)
        shape = (wish["batch"], wish["prompt"])
        ids_BT = torch.randint(5, BENCH_SMALL.vocab_size, shape, generator=generator)
        cpu, wall = time.process_time(), time.perf_counter()
        generate(ids_BT, wish["tokens"])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "resident": resident()}), flush=True)


if __name__ == "__main__":
    main()
