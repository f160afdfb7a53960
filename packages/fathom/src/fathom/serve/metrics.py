"""Figures for Prometheus, named as vLLM names them: the server's own, and the engine's counters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)  # seconds
BETWEEN_TOKENS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
WHOLE_REQUEST = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
PREFIX = "fathom:"
GAUGES = {  # counter of the engine: (name, meaning)
    "running": ("num_requests_running", "Answers that are being written."),
    "waiting": ("num_requests_waiting", "Answers that wait in the engine's queue."),
    "pages_total": ("kv_cache_pages", "Pages of the latent cache."),
    "pages_used": ("kv_cache_pages_used", "Pages of requests that run."),
    "pages_cached": ("kv_cache_pages_cached", "Pages of earlier prompts, kept in case they come again."),
}
COUNTERS = {
    "prompt_tokens": ("prefix_cache_queries", "Prompt tokens that were looked up in the prefix cache."),
    "prefix_hit_tokens": ("prefix_cache_hits", "Prompt tokens that were found there."),
    "tokens": ("engine_generation_tokens", "Tokens that the engine wrote."),
    "drafted": ("spec_decode_num_draft_tokens", "Tokens that were drafted."),
    "accepted": ("spec_decode_num_accepted_tokens", "Drafts that stood."),
    "trunk_passes": ("trunk_passes", "Forwards of the trunk, summed over answers."),
    "steps": ("engine_steps", "Steps of the engine."),
}


class EngineFigures:
    """What the engine last told of itself; counters begin anew with its process, as Prometheus expects."""

    def __init__(self) -> None:
        self.stats: Mapping[str, float] | None = None
        self.inside = 0

    def collect(self) -> Iterator[Metric]:
        """As the registry asks for them."""
        up = float(self.stats is not None)
        yield GaugeMetricFamily(f"{PREFIX}engine_up", "Whether the engine answers.", value=up)
        inside = float(self.inside)
        yield GaugeMetricFamily(f"{PREFIX}num_requests_inside", "Requests the server holds.", value=inside)
        if self.stats is None:
            return
        for known, (name, meaning) in GAUGES.items():
            yield GaugeMetricFamily(PREFIX + name, meaning, value=self.stats.get(known, 0.0))
        for known, (name, meaning) in COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, meaning, value=self.stats.get(known, 0.0))
        used = self.stats.get("pages_used", 0.0) / max(self.stats.get("pages_total", 0.0), 1.0)
        yield GaugeMetricFamily(f"{PREFIX}kv_cache_usage_perc", "Share of pages in use, 0 to 1.", value=used)
        drafted, accepted = self.stats.get("drafted", 0.0), self.stats.get("accepted", 0.0)
        rate = accepted / drafted if drafted else 0.0
        meaning = "Share of drafts that stood, 0 to 1."
        yield GaugeMetricFamily(f"{PREFIX}spec_decode_acceptance_rate", meaning, value=rate)


class Metrics:
    """Figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.engine = EngineFigures()
        self.registry.register(self.engine)
        self.first_token = Histogram(
            f"{PREFIX}time_to_first_token_seconds",
            "From the request to its first token.",
            buckets=FIRST_TOKEN,
            registry=self.registry,
        )
        self.between_tokens = Histogram(
            f"{PREFIX}inter_token_latency_seconds", "From one token of an answer to the next.",
            buckets=BETWEEN_TOKENS, registry=self.registry,
        )  # fmt: skip
        self.whole_request = Histogram(
            f"{PREFIX}e2e_request_latency_seconds",
            "From the request to its end.",
            buckets=WHOLE_REQUEST,
            registry=self.registry,
        )
        self.prompt_tokens = Counter(
            f"{PREFIX}prompt_tokens", "Of requests that were taken up.", registry=self.registry
        )
        self.generation_tokens = Counter(
            f"{PREFIX}generation_tokens", "Sent to clients.", registry=self.registry
        )
        self.finished = Counter(
            f"{PREFIX}request_success", "Answers by their end.", ["finished_reason"], registry=self.registry
        )
        self.gone = Counter(
            f"{PREFIX}request_abandoned", "Requests whose client left.", registry=self.registry
        )
        self.http = Counter(
            f"{PREFIX}http_requests", "By route and status.", ["route", "status"], registry=self.registry
        )

    def page(self, stats: Mapping[str, float] | None, inside: int) -> bytes:
        """The text that Prometheus reads; `stats` None = the engine is down."""
        self.engine.stats, self.engine.inside = stats, inside
        return generate_latest(self.registry)
