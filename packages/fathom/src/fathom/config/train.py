"""How a run learns: budget, optimizer, the report's schedules, balance (report sections 2.1.2, 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from fathom.config.errors import need
from fathom.config.setting import check, setting, share

MOST_BETA2_IN_BF16 = 0.98  # steady squares of gradients then end up to a sixth short; with 0.999, two thirds


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW with fp32 master weights (report section 4.2)."""

    beta1: float = setting(0.9, "decay of the first moment", low=0.0, high=0.9999)
    beta2: float = setting(0.95, "decay of the second moment", low=0.0, high=0.99999)
    eps: float = setting(1e-8, "added to the root of the second moment", above=0.0)
    weight_decay: float = setting(0.1, "decoupled decay of matrices", low=0.0)
    clip: float = setting(1.0, "largest global gradient norm; 0 = no clipping", low=0.0)
    ema: float = setting(0.0, "decay of the moving average of weights; 0 = none", low=0.0, high=0.99999)
    moments: str = setting(
        "auto",
        "how both moments are kept (report: bf16); auto = bf16 in FP8 runs, if the second is quick enough",
        choices=("auto", "bf16", "fp32"),
    )

    def __post_init__(self) -> None:
        check(self, "train.optim")
        need(
            self.moments != "bf16" or self.bears_bf16,
            f"train.optim.moments=bf16 with train.optim.beta2={self.beta2:g} would lose what each step adds",
            fix=f"set moments=fp32, or beta2 to {MOST_BETA2_IN_BF16} or less",
        )

    @property
    def bears_bf16(self) -> bool:
        """Whether moments of 8 bits still follow: a step adds 1 - beta2 of what is new, rounding 2^-9."""
        return self.beta2 <= MOST_BETA2_IN_BF16


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """Milestones as fractions of the whole run; the defaults are the report's token counts over 14.8T.

    The learning rate is linear over `warmup_steps` and at most `warmup` of the run, constant to `decay_from`,
    a cosine to `lr_end` at `decay_to`, constant to `tail_from`, then `lr_tail`.
    """

    warmup_steps: int = setting(2000, "steps of linear warm-up", low=0)
    warmup: float = share(1.0, "warm-up lasts at most this share of the run")
    decay_from: float = share(10.0 / 14.8, "where the cosine starts (10T of 14.8T)")
    decay_to: float = share(14.3 / 14.8, "where the cosine ends (14.3T)")
    tail_from: float = share(14.633 / 14.8, "where the last constant rate starts (14.633T)")
    lr_end: float = share(0.1, "rate after the cosine, as a share of train.lr (2.2e-5 / 2.2e-4)")
    lr_tail: float = share(7.3 / 220, "last rate, as a share of train.lr (7.3e-6 / 2.2e-4)")
    batch_start: float = setting(1.0, "first batch, as a share of the full one", above=0.0, high=1.0)
    batch_full: float = share(0.469 / 14.8, "where the batch reaches its full size (469B)")
    bias_until: float = share(14.3 / 14.8, "where the bias speed falls to 0 (14.3T)")
    mtp_until: float = share(10.0 / 14.8, "where the MTP weight changes (10T)")

    def __post_init__(self) -> None:
        check(self, "train.schedule")
        first, second, third = sorted((self.decay_from, self.decay_to, self.tail_from))
        need(
            self.decay_from <= self.decay_to <= self.tail_from,
            f"train.schedule.decay_from={self.decay_from:g}, train.schedule.decay_to={self.decay_to:g} and "
            f"train.schedule.tail_from={self.tail_from:g} do not follow one another",
            fix=f"set decay_from to {first:g}, decay_to to {second:g} and tail_from to {third:g}, say",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceConfig:
    """Auxiliary-loss-free balance, the sequence-wise loss, and MTP's weight (report 2.1.2, 2.2, 4.2)."""

    bias_speed: float = setting(0.001, "step of the routing bias, gamma", low=0.0)
    bias_rule: str = setting("sign", "sign (report) or centred: less its mean", choices=("sign", "centred"))
    sequence_loss: float = setting(1e-4, "weight of the sequence-wise loss of eq 17-20, alpha", low=0.0)
    mtp_weight: float = setting(0.3, "weight of the MTP loss, lambda", low=0.0)
    mtp_weight_end: float = setting(0.1, "lambda after schedule.mtp_until", low=0.0)

    def __post_init__(self) -> None:
        check(self, "train.balance")


@dataclass(frozen=True, kw_only=True, slots=True)
class StabilityConfig:
    """What happens to a step whose loss or gradient norm is no number, or far above the recent ones."""

    window: int = setting(128, "recent steps that a spike is measured against", low=8, high=100_000)
    spike: float = setting(8.0, "skip a step this many deviations above them; 0 = none", low=0.0)
    limit: int = setting(10, "most skipped steps among the recent ones; beyond, the run stops", low=0)
    rollbacks: int = setting(
        0, "times the run may go back to its last checkpoint instead of stopping", low=0
    )

    def __post_init__(self) -> None:
        check(self, "train.stability")
        need(
            self.limit < self.window,
            f"train.stability.limit={self.limit} is not below train.stability.window={self.window}",
            fix=f"set limit to {self.window // 10}, say",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig:
    """What a run tells of itself, and how often."""

    every: int = setting(10, "steps between lines of the log and records of loads", low=1)
    eval_every: int = setting(0, "steps between measures of held-out bits per byte; 0 = at the end", low=0)
    samples: int = setting(2, "texts the model continues at every measure, for the report", low=0, high=64)
    wandb: str = setting(
        "auto",
        "auto = if installed: online if you are logged in or WANDB_MODE says so, else offline",
        choices=("auto", "off"),
    )

    def __post_init__(self) -> None:
        check(self, "train.log")


@dataclass(frozen=True, kw_only=True, slots=True)
class SaveConfig:
    """When checkpoints are written, and how many stay."""

    every: int = setting(0, "steps between checkpoints; 0 = at the end", low=0)
    keep: int = setting(3, "newest checkpoints that are kept", low=1)

    def __post_init__(self) -> None:
        check(self, "train.save")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fp8Config:
    """FP8 mixed precision (report section 3.3)."""

    gradients: str = setting(
        "tiles",
        "of activations, cut for Dgrad: tiles of 1 x 128 (report), or blocks of 128 x 128, which made a 16B "
        "model diverge (report appendix B.2)",
        choices=("tiles", "blocks"),
    )

    def __post_init__(self) -> None:
        check(self, "train.fp8")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One training run. Give it `steps`, `tokens` or `minutes`: the first that is not 0 is the budget."""

    steps: int = setting(0, "budget in optimizer steps; 0 = not this one", low=0)
    tokens: int = setting(0, "budget in tokens; 0 = not this one", low=0)
    minutes: float = setting(0.0, "budget in minutes; schedules then follow elapsed time", low=0.0, high=1e7)
    lr: float = setting(2.2e-4, "largest learning rate", above=0.0, high=10.0)
    seq_len: int = setting(4096, "tokens in a row", low=2)
    batch_size: int = setting(15360, "rows per optimizer step", low=1)
    micro_batch: int = setting(0, "rows per forward pass; 0 = the whole batch", low=0)
    precision: str = setting(
        "auto", "of the matmuls; masters stay fp32; auto = the faster of bf16 and fp32",
        choices=("auto", "bf16", "fp32", "fp8"),
    )
    recompute: bool = setting(False, "recompute each block in the backward pass instead of storing it")
    mask_documents: bool = setting(False, "attention stays inside a document (report section 4.1: off)")
    device: str = setting("auto", "auto, cpu or cuda", choices=("auto", "cpu", "cuda"))
    seed: int = setting(0, "seed of the initial weights and of the data order", low=0)
    ops: str = setting(
        "fast", "fast = kernels with hand-written backward passes; plain = the forms they are tested against",
        choices=("fast", "plain"),
    )
    fp8: Fp8Config = setting(Fp8Config, "what precision = fp8 may be told")
    optim: OptimConfig = setting(OptimConfig, "optimizer")
    schedule: ScheduleConfig = setting(ScheduleConfig, "schedules")
    balance: BalanceConfig = setting(BalanceConfig, "balance of experts, and MTP's weight")
    stability: StabilityConfig = setting(StabilityConfig, "steps that go wrong")
    log: LogConfig = setting(LogConfig, "what the run tells")
    save: SaveConfig = setting(SaveConfig, "checkpoints")

    def __post_init__(self) -> None:
        check(self, "train")
        budgets = {"steps": self.steps, "tokens": self.tokens, "minutes": self.minutes}
        given = [f"train.{k}={v}" for k, v in budgets.items() if v]
        need(len(given) <= 1, f"{' and '.join(given)} are too many budgets", fix="set all but one to 0")
        need(
            not self.stability.rollbacks or self.save.every > 0,
            f"train.stability.rollbacks={self.stability.rollbacks} needs checkpoints to go back to",
            fix="set train.save.every to 100, say",
        )
        need(
            self.fp8.gradients == "tiles" or self.precision == "fp8",
            f"train.fp8.gradients={self.fp8.gradients!r} says nothing to train.precision={self.precision!r}",
            fix="set train.precision=fp8",
        )
        need(
            self.micro_batch <= self.batch_size,
            f"train.micro_batch={self.micro_batch} is above train.batch_size={self.batch_size}",
            fix=f"set micro_batch to {self.batch_size} or less",
        )
