"""What a node can be measured by, computed from its records at the moment of asking (incidents.md 6).

Nothing here is counted by hand: a restart, a second reader or a lost sample changes no figure. The exceptions exist nowhere else than in
the process: what carrier and inbox did since it started, the age of each loop's last step, how long the last commits took, how long work
has waited for a plan, and when each operator was last heard about a vault whose states nobody can prove.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chains.base import Chain
from messages.errors import Conflict
from messages.ids import HOUSE, INSURANCE
from relayer.log import redact
from relayer.node import Node
from relayer.rules.ledger import VaultState, verify_conservation
from relayer.rules.quorum import get_certified_plan
from relayer.service import Service
from relayer.store import PacketRecord

PREFIX = "optsettle_"
HORIZON_S = 400 * 86_400
"""How far ahead the end of trust in a light-client state is looked for."""

MAX_BLAMES = 500
"""Misdeeds that are exported, the latest first: their sources are bounded, and this makes sure."""


class CarrierState(Protocol):
    """What of a gossip carrier is measured (`relayer.mqtt.MqttGossip`)."""

    is_connected: bool

    @property
    def counts(self) -> Mapping[str, int]:
        """Messages by what became of them."""

    @property
    def queued(self) -> int:
        """Messages that wait to be sent."""


@dataclass(frozen=True)
class Sample:
    """One number with its labels."""

    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True)
class Family:
    """All samples of one name. kind: gauge or counter."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


class _Families:
    """Families in the making; a name is described where it is first used."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, str, list[Sample]]] = {}

    def gauge(self, name: str, text: str, value: float | None, **labels: str) -> None:
        self._add(name, "gauge", text, value, labels)

    def counter(self, name: str, text: str, value: float, **labels: str) -> None:
        self._add(name, "counter", text, value, labels)

    def _add(self, name: str, kind: str, text: str, value: float | None, labels: Mapping[str, str]) -> None:
        samples = self._found.setdefault(PREFIX + name, (kind, text, []))[2]
        if value is not None:
            samples.append(Sample(tuple(labels.items()), float(value)))

    def get(self) -> tuple[Family, ...]:
        return tuple(Family(name, kind, text, tuple(samples)) for name, (kind, text, samples) in self._found.items())


def compute_families(service: Service, carrier: CarrierState | None = None) -> tuple[Family, ...]:
    """Every figure of a node now. Ages and times in seconds, sizes in bytes; a figure that does not exist yet has no sample.

    Args:
        service: open; it need not run.
        carrier: the gossip connection, where there is one.
    """
    out, node = _Families(), service.node
    now = node.clock.now()
    node.write_blames()
    out.gauge("info", "Which node this is.", 1, node=node.name, operator="0x" + node.signer.operator.hex())
    for chain in node.chains.values():
        _add_chain(out, node, chain, now)
    _add_committee(out, node, now)
    _add_observers(out, node, now)
    _add_incidents(out, node, now)
    _add_effects(out, node)
    _add_loops(out, service, now)
    _add_gossip(out, node, carrier)
    _add_disk(out, node)
    return out.get()


# ---- chains -------------------------------------------------------------------------------------------------------------


def _add_chain(out: _Families, node: Node, chain: Chain[Any, Any, Any, Any], now: int) -> None:
    labels = {"chain": chain.chain_id}
    trusted, head = node.store.get_trusted(chain.chain_id), node.store.get_head(chain.vault_id)
    state = node.states.get_newest(chain.vault_id)
    out.gauge(
        "head_age_seconds",
        "Age of the newest verified header.",
        None if trusted is None else now - trusted[0].time,
        **labels,
    )
    out.gauge(
        "proof_age_seconds",
        "Age of the newest proven vault head.",
        None if head is None else now - head.point.time,
        **labels,
    )
    expiry = None
    if trusted is not None:
        decoded = chain.codec.decode_trusted(trusted[1])
        expiry = find_end_of_trust(lambda at: chain.verifier.is_fresh(decoded, at), trusted[0].time, now) - now
    out.gauge(
        "light_client_expiry_seconds", "Time until the newest trusted state is too old to build on.", expiry, **labels
    )
    out.gauge("outbox_sequence", "Newest recorded outbox packet.", state.outbox_sequence, **labels)
    out.gauge("inbox_sequence", "Newest answered inbox packet.", state.inbox_sequence, **labels)
    halted = node.store.is_halted(f"chain:{chain.chain_id}")
    out.gauge("chain_halted", "1 while this chain is halted here.", int(halted), **labels)
    opened = [p for p in node.store.get_packets("open") if p.vault_id == chain.vault_id]
    certified = [p for p in opened if node.store.get_certificate_signatures(p) is not None]
    text = "Packets with m votes whose Ack or absence is not proven yet."
    out.gauge("open_packets", text, len(certified), **labels, certified="yes")
    out.gauge("open_packets", text, len(opened) - len(certified), **labels, certified="no")
    out.gauge("unsettled_age_seconds", "Age of the oldest open packet; 0 without one.", _get_age(opened, now), **labels)
    stamps = [t.stamp for t in state.trades.values()] + [r.stamp for r in state.requests.values()]
    waiting = max((now - stamp for stamp in stamps), default=0)
    out.gauge(
        "request_age_seconds",
        "Age of the oldest undecided trade or withdrawal request; 0 without one.",
        waiting,
        **labels,
    )
    overdue = compute_overdue(state, now)
    out.gauge(
        "expiry_overdue_seconds",
        "Time since the oldest expiry that still has positions; 0 without one.",
        overdue,
        **labels,
    )


def _get_age(packets: Iterable[PacketRecord], now: int) -> int:
    return max((now - p.seen_at for p in packets), default=0)


def compute_overdue(state: VaultState, now: int) -> int:
    """Seconds since the oldest expiry of a series in which somebody still has a position at this vault; 0: none."""
    held = {
        series for (account, series), amount in state.positions.items() if amount and account not in (HOUSE, INSURANCE)
    }
    return max(
        (now - state.series[s].expiry for s in held if s in state.series and state.series[s].expiry <= now), default=0
    )


def find_end_of_trust(is_fresh: Callable[[int], bool], since: int, now: int) -> int:
    """The last second at which a light-client state still counts, by bisection: every family states its rule as a question.

    Args:
        is_fresh: whether the state counts at a time; true up to some instant and never after it.
        since: time of the state.
        now: unix seconds; looked at most `HORIZON_S` ahead.
    """
    low, high = since, now + HORIZON_S
    if not is_fresh(low):
        return low
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_fresh(middle) else (low, middle - 1)
    return low


# ---- committee ----------------------------------------------------------------------------------------------------------


def _add_committee(out: _Families, node: Node, now: int) -> None:
    committee, progress = node.get_committee(), node.progress
    out.gauge("operators", "Operators of the set in force.", len(committee.operators))
    out.gauge("threshold", "Signatures that make a certificate.", committee.threshold)
    margin = None
    for k in sorted(progress.ballots, reverse=True):
        plan = get_certified_plan(progress.ballots[k], committee)
        if plan is not None:
            voters = {v.operator for v in progress.ballots[k].votes if v.plan_digest == plan}
            margin = len(voters) - committee.threshold
            break
    out.gauge("quorum_margin", "Votes for the newest certified plan beyond the threshold.", margin)
    out.gauge("k", "Number of the proposal that is due.", progress.base_k)
    waiting = 0 if progress.since is None else now - progress.since
    out.gauge("plan_wait_seconds", "How long work has waited for a certified plan; 0 without work.", waiting)


# ---- incidents ----------------------------------------------------------------------------------------------------------


def compute_conservation_delta(node: Node) -> int:
    """0 where every conservation law holds over the recorded facts; else the difference, or 1 where it has no size."""
    try:
        verify_conservation(node.states.get_all_newest(), node.parameters)
    except Conflict as error:
        if error.reason == "backing" and node.find_unfinished():
            return 0  # judged when every vault is there (`Node.verify_worth`)
        if isinstance(error.got, int) and isinstance(error.expected, int):
            return abs(error.got - error.expected) or 1
        return 1
    return 0


def _add_observers(out: _Families, node: Node, now: int) -> None:
    operators = node.get_committee().operators
    for vault_id, heard_at in node.heard_at.items():
        for operator, at in heard_at.items():
            if operator in operators:
                out.gauge(
                    "observation_age_seconds",
                    "Time since an operator last said what it reads of a vault whose states nobody can prove.",
                    now - at,
                    chain=node.chains[vault_id].chain_id,
                    operator="0x" + operator.hex(),
                )


def _add_incidents(out: _Families, node: Node, now: int) -> None:
    out.gauge(
        "conservation_delta",
        "Difference in a conservation law, in base units; must be 0.",
        compute_conservation_delta(node),
    )
    active = [h for h in node.store.get_halts() if h.is_active]
    for halt in active:
        out.gauge(
            "halt_active", "1 for each halt that waits for two people.", 1, subject=halt.subject, reason=halt.reason
        )
    out.gauge("node_halted", "1 while this node signs nothing.", int(any(h.subject == "node" for h in active)))
    quarantine = node.signer.journal.quarantine_until
    out.gauge(
        "signer_quarantined",
        "1 while the journal was lost or restored and the key signs nothing.",
        int(quarantine is not None),
    )
    out.gauge(
        "equivocations",
        "Proofs on record that an operator made two statements for one slot.",
        len(node.store.get_evidence()),
    )
    refusals: dict[str, int] = {}
    for blame, count, last_at in node.store.get_blames()[:MAX_BLAMES]:
        labels = {"chain": blame.chain, "source": redact(blame.source), "reason": blame.reason}
        out.counter("blames", "What sources did wrong, by name and reason.", count, **labels)
        out.gauge("blame_age_seconds", "Time since a source last did a thing wrong.", now - last_at, **labels)
        if blame.source in ("own journal", "own key"):
            refusals[blame.reason] = refusals.get(blame.reason, 0) + count
    for reason, count in refusals.items():
        out.counter("signer_refusals", "What the signer's journal refused, by reason.", count, reason=reason)


# ---- effects, loops, gossip, disk ---------------------------------------------------------------------------------------


def _add_effects(out: _Families, node: Node) -> None:
    for (chain, outcome), count in sorted(node.store.get_transaction_counts().items()):
        out.gauge(
            "transactions", "Stored transactions by what the chain last said.", count, chain=chain, outcome=outcome
        )


def _add_loops(out: _Families, service: Service, now: int) -> None:
    for name, at in service.last_steps.items():
        age = now - max(at, service.node.active_at.get(name, 0))
        out.gauge("loop_age_seconds", "Time since a loop last ended a step, or got on with a long one.", age, loop=name)


def _add_gossip(out: _Families, node: Node, carrier: CarrierState | None) -> None:
    out.gauge("inbox_messages", "Messages that wait to be read.", len(node.inbox))
    out.counter("inbox_dropped", "Messages dropped unread since the process started.", node.inbox.dropped)
    if carrier is None:
        return
    out.gauge("gossip_connected", "1 while the broker is connected.", int(carrier.is_connected))
    out.gauge("gossip_queued", "Messages that wait to be sent.", carrier.queued)
    for what, count in sorted(carrier.counts.items()):
        out.counter(
            "gossip_messages", "Messages since the process started, by what became of them.", count, result=what
        )


def _add_disk(out: _Families, node: Node) -> None:
    out.gauge("disk_free_bytes", "Free space where the store lies.", shutil.disk_usage(node.store.path.parent).free)
    out.gauge("store_bytes", "Size of the store's file.", node.store.path.stat().st_size)
    commits = sorted(node.store.commits_s)
    for quantile in (0.5, 0.99):
        value = commits[min(len(commits) - 1, int(len(commits) * quantile))] if commits else None
        out.gauge("commit_seconds", "How long the last commits of the store took.", value, quantile=str(quantile))


# ---- Prometheus ---------------------------------------------------------------------------------------------------------


class NodeCollector(Collector):
    """Computes the figures anew at each scrape. Scrape in the service's thread: the store belongs to it."""

    def __init__(self, compute: Callable[[], tuple[Family, ...]]) -> None:
        self._compute = compute

    def collect(self) -> Iterator[Metric]:
        """Families in the format of prometheus-client."""
        for family in self._compute():
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            names = [name for name, _ in family.samples[0].labels] if family.samples else []
            metric = kind(family.name, family.help, labels=names)
            for sample in family.samples:
                metric.add_metric([value for _, value in sample.labels], sample.value)
            yield metric


def render(service: Service, carrier: CarrierState | None = None) -> bytes:
    """The text of /metrics: the node's figures and those of its process."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(lambda: compute_families(service, carrier)))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
