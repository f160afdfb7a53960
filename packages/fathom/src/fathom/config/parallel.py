"""How many ranks share a run, and which part each has (report sections 3.1 and 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, gcd

from fathom.config.errors import need
from fathom.config.model import ModelConfig
from fathom.config.setting import check, setting
from fathom.config.train import TrainConfig

SCHEDULES = ("gpipe", "1f1b", "zb1p", "dualpipe", "dualpipev")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig:
    """A mesh of pp x dp x ep ranks. The default is one rank alone.

    `pp` ranks hold consecutive stages of the network. The dp x ep ranks of one stage see different rows; `ep`
    neighbours share out the experts of the stage, and each of the `dp` sets of them holds all experts.
    """

    pp: int = setting(1, "pipeline ranks", low=1)
    dp: int = setting(1, "replicas of each set of experts", low=1)
    ep: int = setting(1, "ranks that share out the experts of a stage", low=1)
    schedule: str = setting("1f1b", "order of work in the pipeline", choices=SCHEDULES)
    ranks_per_node: int = setting(8, "ranks of one machine; routing counts machines, not ranks", low=1)
    backend: str = setting("auto", "auto = nccl on cuda, gloo on cpu", choices=("auto", "gloo", "nccl"))

    def __post_init__(self) -> None:
        check(self, "parallel")
        ep, per_node = self.ep, self.ranks_per_node
        need(
            ep <= per_node or ep % per_node == 0,
            f"parallel.ep={ep} is above parallel.ranks_per_node={per_node} and does not fill whole nodes",
            fix=f"set ep to {ep - ep % per_node}",
        )
        need(
            self.schedule != "dualpipe" or self.pp % 2 == 0,
            f"parallel.schedule=dualpipe pairs pipeline ranks, and parallel.pp={self.pp} is odd",
            fix=f"set pp to {max(self.pp - 1, 2)}",
        )

    @property
    def world(self) -> int:
        """Ranks of the run."""
        return self.pp * self.dp * self.ep

    @property
    def token_ranks(self) -> int:
        """Ranks of one stage, each of which sees its own rows."""
        return self.dp * self.ep

    @property
    def nodes(self) -> int:
        """Nodes that one set of experts lies on; 1 where it is no larger than a node."""
        return max(self.ep // self.ranks_per_node, 1)

    @property
    def stages_per_rank(self) -> int:
        """Parts of the network that one route has on one rank: DualPipeV goes down and comes back."""
        return 2 if self.schedule == "dualpipev" else 1

    @property
    def stages(self) -> int:
        """Parts that the network is cut into."""
        return self.pp * self.stages_per_rank

    @property
    def micros_step(self) -> int:
        """What the number of micro-batches of a step is a multiple of: DualPipe feeds half at each end."""
        return 2 if self.schedule == "dualpipe" else 1

    @property
    def fewest_micros(self) -> int:
        """Micro-batches that a step has at least (report section 3.2.1)."""
        return 2 * self.pp if self.schedule in ("dualpipe", "dualpipev") else 1


def check_alone(parallel: ParallelConfig, fix: str) -> None:
    """Raise ConfigError unless the run is for one process."""
    what = f"this recipe is for {parallel.world} ranks, and one process was started"
    need(parallel.world == 1, what, fix=fix)


def batch_unit(parallel: ParallelConfig, train: TrainConfig) -> int:
    """Rows of all ranks together that a batch must be a multiple of; 1 for a rank alone."""
    if parallel.world == parallel.stages == 1:
        return 1
    return parallel.token_ranks * (train.micro_batch or 1) * parallel.micros_step


def whole_batch(parallel: ParallelConfig, train: TrainConfig, rows: int) -> int:
    """The batch nearest to `rows` that all ranks can share, at least one unit: for a batch that grows."""
    unit = batch_unit(parallel, train)
    return max((2 * rows + unit) // (2 * unit), 1) * unit


def micro_rows(parallel: ParallelConfig, train: TrainConfig, rows: int) -> int:
    """Rows of a micro-batch in a step of `rows` rows on all ranks.

    With train.micro_batch=0 as many as leave two micro-batches for every pipeline rank, or what the schedule
    needs if that is more; all of a rank's rows where there is no pipeline.
    """
    if train.micro_batch:
        return train.micro_batch
    own = rows // parallel.token_ranks
    aim = max(parallel.fewest_micros, 2 * parallel.pp if parallel.pp > 1 else 1)
    fit = (m for m in range(own // aim, 0, -1) if own % m == 0 and own // m % parallel.micros_step == 0)
    return next(fit, 1)


def count_micros(parallel: ParallelConfig, train: TrainConfig, rows: int) -> int:
    """Micro-batches per pipeline of a step of `rows` rows."""
    return rows // parallel.token_ranks // micro_rows(parallel, train, rows)


def check_parallel(parallel: ParallelConfig, model: ModelConfig, train: TrainConfig) -> None:
    """The rules between the mesh, the network and the batch. Raises ConfigError."""
    _check_stages(parallel, model)
    if not (model.dense_layers == model.num_layers and model.mtp.depth == 0):
        _check_experts(parallel, model)
    if parallel.world > 1 or parallel.stages > 1:
        _check_rows(parallel, train)
        _check_micros(parallel, train)
    for backend, device in (("nccl", "cpu"), ("gloo", "cuda")):
        need(
            (parallel.backend, train.device) != (backend, device),
            f"parallel.backend={backend} does not serve train.device={device}",
            fix="set parallel.backend to auto",
        )


def _check_stages(parallel: ParallelConfig, model: ModelConfig) -> None:
    most = model.num_layers // parallel.stages_per_rank
    most -= most % 2 if parallel.schedule == "dualpipe" else 0
    need(
        parallel.stages <= model.num_layers,
        f"parallel.schedule={parallel.schedule} on parallel.pp={parallel.pp} ranks cuts "
        f"model.num_layers={model.num_layers} into {parallel.stages} stages, and a stage needs a layer",
        fix=f"set parallel.pp to {most}" if most else "set parallel.schedule to 1f1b and parallel.pp to 1",
    )


def _check_experts(parallel: ParallelConfig, model: ModelConfig) -> None:
    """Equal blocks of experts, and whole groups on each node: then groups_per_token limits nodes."""
    moe, ep, nodes = model.moe, parallel.ep, parallel.nodes
    need(
        moe.num_experts % ep == 0,
        f"model.moe.num_experts={moe.num_experts} do not split into equal blocks for parallel.ep={ep} ranks",
        fix=f"set parallel.ep to {gcd(moe.num_experts, ep)}",
    )
    need(
        moe.num_groups % nodes == 0,
        f"parallel.ep={ep} ranks are {nodes} nodes of parallel.ranks_per_node={parallel.ranks_per_node}, "
        f"too uneven for model.moe.num_groups={moe.num_groups} whole groups: groups_per_token could not "
        "limit the nodes of a token",
        fix=f"set parallel.ep to {gcd(moe.num_groups, nodes) * parallel.ranks_per_node}",
    )


def _check_rows(parallel: ParallelConfig, train: TrainConfig) -> None:
    batch, over = train.batch_size, f"the parallel.dp={parallel.dp} x parallel.ep={parallel.ep} ranks"
    need(
        batch % parallel.token_ranks == 0,
        f"train.batch_size={batch} rows do not split over {over}",
        fix=f"set train.batch_size to {_enough(parallel, train)}",
    )
    even = f" an even number of which parallel.schedule={parallel.schedule} needs"
    need(
        batch % batch_unit(parallel, train) == 0,
        f"train.batch_size={batch} over {over} is {batch // parallel.token_ranks} rows, no whole "
        f"micro-batches of train.micro_batch={train.micro_batch}{even if parallel.micros_step > 1 else ''}",
        fix=f"set train.batch_size to {_enough(parallel, train)}",
    )


def _check_micros(parallel: ParallelConfig, train: TrainConfig) -> None:
    """Enough micro-batches, from the first batch of the ramp on."""
    batch, least = train.batch_size, parallel.fewest_micros
    rows, micro = batch // parallel.token_ranks, train.micro_batch or 1
    needs = f"parallel.schedule={parallel.schedule} on parallel.pp={parallel.pp} needs {least} micro-batches"
    mesh = f"parallel.dp={parallel.dp} x parallel.ep={parallel.ep}"
    over = f"of train.micro_batch={train.micro_batch} on {mesh}"
    micros = count_micros(parallel, train, batch)
    finer = rows >= least and rows % parallel.micros_step == 0
    larger = f"set train.batch_size to {_enough(parallel, train)} and train.micro_batch to {micro}"
    need(
        micros >= least,
        f"{needs}; train.batch_size={batch} has {micros} {over}",
        fix=f"set train.micro_batch to {_coarsest(parallel, rows)}" if finer else larger,
    )
    share = train.schedule.batch_start if train.schedule.batch_full else 1.0
    micros = count_micros(parallel, train, whole_batch(parallel, train, round(batch * share)))
    enough = ceil(1e6 * least * parallel.token_ranks * micro / batch) / 1e6
    need(
        micros >= least,
        f"{needs}; the first batch, train.schedule.batch_start={share:g} of train.batch_size={batch}, has "
        f"{micros} {over}",
        fix=f"set train.schedule.batch_start to {min(enough, 1.0)}",
    )


def _coarsest(parallel: ParallelConfig, rows: int) -> int:
    """The largest power of two that cuts a rank's rows into micro-batches enough."""
    micro = 1
    while rows % (2 * micro * parallel.micros_step) == 0 and rows // (2 * micro) >= parallel.fewest_micros:
        micro *= 2
    return micro


def _enough(parallel: ParallelConfig, train: TrainConfig) -> int:
    """The smallest batch from the present one on that satisfies every rule."""
    unit = batch_unit(parallel, train)
    least = parallel.fewest_micros * parallel.token_ranks * (train.micro_batch or 1)
    return -(-max(train.batch_size, least) // unit) * unit
