"""The figures of a line of metrics.jsonl that a page shows, by their names there."""

from __future__ import annotations

LOSS, MTP, BPB = "train/loss", "mtp/loss", "val/bpb"
LR, NORM, VIOLATION = "train/lr", "train/grad_norm", "moe/max_violation"
RATE, MFU = "perf/tokens_per_sec", "perf/mfu"
TOKENS, SECONDS = "train/tokens", "train/elapsed_s"
SKIPPED, ROLLBACKS = "stability/skipped", "stability/rollbacks"  # counts since the run's start
ALL = {LOSS, MTP, BPB, LR, NORM, VIOLATION, RATE, MFU, TOKENS, SECONDS, SKIPPED, ROLLBACKS}
