"""Is this node well? One table of alerts over the figures of `relayer.metrics`, asked over HTTP on this machine only.

The table is the single source: /health judges by it, configs/prometheus/alerts.yml is written from it, and docs/operations.md
says for each what to do (tests hold the three together).
"""

from __future__ import annotations

import asyncio
import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from aiohttp import web

from messages.errors import Rejected
from relayer.metrics import CarrierState, Family, Sample, compute_families, render
from relayer.service import Service

DAY_S: Final = 86_400
MAX_REASONS: Final = 200
_LOOPBACK: Final = ("127.0.0.1", "::1")


class Level(IntEnum):
    """How bad it is. DEGRADED: works, needs a look. HALTED: signs nothing until people have decided."""

    OK = 0
    DEGRADED = 1
    HALTED = 2


@dataclass(frozen=True)
class Alert:
    """Fires for each sample of ``metric`` for which ``value comparison limit`` holds.

    ``only`` and ``unless`` choose samples by their labels; ``lasting_s`` is how long Prometheus waits before it calls somebody
    (/health does not wait).
    """

    name: str
    metric: str
    comparison: str
    limit: float
    level: Level
    lasting_s: int
    summary: str
    only: tuple[tuple[str, str], ...] = ()
    unless: tuple[tuple[str, str], ...] = ()

    def get_expression(self) -> str:
        """The same in PromQL."""
        matchers = [f'{k}="{v}"' for k, v in self.only] + [f'{k}!="{v}"' for k, v in self.unless]
        chosen = "{" + ",".join(matchers) + "}" if matchers else ""
        return f"{self.metric}{chosen} {self.comparison} {self.limit:.12g}"

    def is_firing(self, sample: Sample) -> bool:
        """Whether a sample of the metric is one to call somebody for."""
        labels = dict(sample.labels)
        if any(labels.get(k) != v for k, v in self.only) or any(labels.get(k) == v for k, v in self.unless):
            return False
        return _COMPARISONS[self.comparison](sample.value, self.limit)


_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {">": operator.gt, "<": operator.lt}
_NO_SOURCES: Final = (("chain", "gossip"), ("chain", "node"), ("chain", "submit"), ("chain", "feeds"))
_M: Final = "optsettle_"
_BAD, _STOP = Level.DEGRADED, Level.HALTED

ALERTS: Final = (
    Alert("conservation", _M + "conservation_delta", ">", 0, _STOP, 0, "value was made or lost in a vault's facts"),
    Alert("node_halted", _M + "node_halted", ">", 0, _STOP, 0, "the node signs nothing until two people have agreed"),
    Alert("chain_halted", _M + "chain_halted", ">", 0, _BAD, 0, "a chain is stopped here until two people have agreed"),
    Alert("signer_quarantined", _M + "signer_quarantined", ">", 0, _BAD, 0, "the key's journal is new, lost or restored"),
    Alert("signer_refused", _M + "blame_age_seconds", "<", 900, _BAD, 0, "the signer refused a second statement",
          only=(("source", "own journal"),)),
    Alert("equivocation", _M + "blame_age_seconds", "<", DAY_S, _BAD, 0, "an operator made two statements for one slot",
          only=(("reason", "equivocation"),)),
    Alert("observer_silent", _M + "observation_age_seconds", ">", 300, _BAD, 60, "an operator says nothing of a vault"),
    Alert("wrong_head", _M + "blame_age_seconds", "<", DAY_S, _BAD, 0, "an operator signed another head than m others saw",
          only=(("chain", "gossip"), ("reason", "wrong_head"))),
    Alert("head_old", _M + "head_age_seconds", ">", 3600, _BAD, 300, "a chain's finality or all its endpoints stand still"),
    Alert("proof_old", _M + "proof_age_seconds", ">", 3600, _BAD, 300, "headers come and the vault's proofs do not"),
    Alert("light_client_expiring", _M + "light_client_expiry_seconds", "<", 2 * DAY_S, _BAD, 0,
          "trust in a chain's newest state ends soon"),
    Alert("source_blamed", _M + "blame_age_seconds", "<", 900, _BAD, 300, "an endpoint lies, lags or is away",
          unless=_NO_SOURCES),
    Alert("feed_blamed", _M + "blame_age_seconds", "<", 900, _BAD, 300, "a price feed lies or is away",
          only=(("chain", "feeds"),)),
    Alert("plan_late", _M + "plan_wait_seconds", ">", 300, _BAD, 60, "work waits and no plan finds its votes"),
    Alert("quorum_thin", _M + "quorum_margin", "<", 1, _BAD, 600, "one more silent operator stops every settlement"),
    Alert("packet_unsettled", _M + "unsettled_age_seconds", ">", 1800, _BAD, 300, "a certified packet does not get in"),
    Alert("request_waiting", _M + "request_age_seconds", ">", 7200, _BAD, 300, "users wait for a decision"),
    Alert("expiry_overdue", _M + "expiry_overdue_seconds", ">", 3600, _BAD, 300, "an expired series is not settled"),
    Alert("gossip_disconnected", _M + "gossip_connected", "<", 1, _BAD, 60, "the broker is not connected"),
    Alert("gossip_flooded", _M + "inbox_messages", ">", 2048, _BAD, 60, "messages come faster than they are read"),
    Alert("loop_stuck", _M + "loop_age_seconds", ">", 300, _BAD, 60, "a loop of the node has not ended a step"),
    Alert("disk_low", _M + "disk_free_bytes", "<", 2**30, _BAD, 300, "the disk of the store is nearly full"),
    Alert("disk_slow", _M + "commit_seconds", ">", 0.5, _BAD, 300, "one commit in a hundred takes this long",
          only=(("quantile", "0.99"),)),
)  # fmt: skip
"""Every reason to call a person, worst first."""


@dataclass(frozen=True)
class Reason:
    """One alert that fires, for one sample."""

    alert: str
    level: Level
    summary: str
    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True)
class Health:
    """The verdict: the worst level and why."""

    level: Level
    reasons: tuple[Reason, ...]


def set_limits(limits: Mapping[str, float]) -> tuple[Alert, ...]:
    """The table with other limits by alert name (chains differ in pace).

    Raises:
        Rejected: no alert has that name; reason ``unknown_alert``.
    """
    known = {a.name for a in ALERTS}
    for name in limits:
        if name not in known:
            raise Rejected(
                "there is no such alert", got=name, expected=", ".join(sorted(known)), reason="unknown_alert"
            )
    return tuple(replace(a, limit=float(limits[a.name])) if a.name in limits else a for a in ALERTS)


def judge(families: tuple[Family, ...], alerts: tuple[Alert, ...] = ALERTS) -> Health:
    """Compare every figure with every alert; pure."""
    samples = {f.name: f.samples for f in families}
    reasons = [
        Reason(a.name, a.level, a.summary, sample.labels, sample.value)
        for a in alerts
        for sample in samples.get(a.metric, ())
        if a.is_firing(sample)
    ]
    return Health(max((r.level for r in reasons), default=Level.OK), tuple(reasons[:MAX_REASONS]))


def get_missing(service: Service, carrier: CarrierState | None) -> tuple[str, ...]:
    """What a started node still lacks before it can take part; () when it is ready."""
    node, missing = service.node, []
    missing += [f"no proven head of {c.chain_id}" for v, c in node.chains.items() if node.store.get_head(v) is None]
    missing += [
        f"packets up to the proven head of {node.chains[v].chain_id}"
        for v in node.find_unfinished()
        if node.store.get_head(v) is not None
    ]
    if not service.last_steps:
        missing.append("the loops do not run")
    if carrier is not None and not carrier.is_connected:
        missing.append("the broker is not connected")
    if node.store.is_halted("node"):
        missing.append("the node is halted")
    if node.signer.journal.quarantine_until is not None:
        missing.append("the signer is in quarantine")
    return tuple(missing)


def render_rules(alerts: tuple[Alert, ...] = ALERTS) -> str:
    """The alerts as a rule file of Prometheus (configs/prometheus/alerts.yml)."""
    lines = [
        "# Written from relayer/health.py; a test compares. What to do for each: docs/operations.md.",
        "groups:",
        "  - name: optsettle",
        "    rules:",
    ]
    for alert in alerts:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {alert.get_expression()}",
            f"        for: {alert.lasting_s}s",
            "        labels:",
            f"          severity: {'page' if alert.level is Level.HALTED else 'ticket'}",
            "        annotations:",
            f"          summary: {alert.summary}",
        ]
    return "\n".join(lines) + "\n"


class Monitor:
    """Serves /metrics, /health and /ready of one service on this machine. `run` is a task for the service's group.

    Args:
        service: open.
        carrier: the gossip connection, where there is one.
        host: a loopback address: what is served here is nobody else's business, and a scraper elsewhere comes by a tunnel.
        port: 0 lets the system choose; `address` says which it was.
        limits: see `set_limits`.

    Raises:
        Rejected: ``metrics_host`` (not loopback), ``unknown_alert``.
    """

    def __init__(
        self,
        service: Service,
        carrier: CarrierState | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Mapping[str, float] | None = None,
    ) -> None:
        if host not in _LOOPBACK:
            raise Rejected(
                "metrics are served on this machine only",
                got=host,
                expected=" or ".join(_LOOPBACK),
                reason="metrics_host",
            )
        self._service, self._carrier = service, carrier
        self._host, self._port = host, port
        self._alerts = set_limits(limits or {})
        self._stop = asyncio.Event()
        self.address: tuple[str, int] | None = None

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            Rejected: the port is taken; reason ``metrics_port``.
        """
        app = web.Application(client_max_size=1024)
        app.add_routes(
            [
                web.get("/metrics", self._answer_metrics),
                web.get("/health", self._answer_health),
                web.get("/ready", self._answer_ready),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port)
            try:
                await site.start()
            except OSError as error:
                raise Rejected(
                    f"nothing can listen on {self._host}:{self._port}: choose another [metrics] port",
                    got=error.strerror,
                    reason="metrics_port",
                ) from error
            name = runner.addresses[0]
            self.address = (str(name[0]), int(name[1]))
            await self._stop.wait()
        finally:
            self.address = None
            await runner.cleanup()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stop.set()

    def get_health(self) -> Health:
        """The verdict now."""
        return judge(compute_families(self._service, self._carrier), self._alerts)

    async def _answer_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=render(self._service, self._carrier), content_type="text/plain", charset="utf-8")

    async def _answer_health(self, _request: web.Request) -> web.Response:
        health = self.get_health()
        body = {
            "status": health.level.name.lower(),
            "reasons": [
                {
                    "alert": r.alert,
                    "level": r.level.name.lower(),
                    "summary": r.summary,
                    "value": r.value,
                    **dict(r.labels),
                }
                for r in health.reasons
            ],
        }
        return _answer_json(body, is_good=health.level is not Level.HALTED)

    async def _answer_ready(self, _request: web.Request) -> web.Response:
        missing = get_missing(self._service, self._carrier)
        return _answer_json({"ready": not missing, "missing": list(missing)}, is_good=not missing)


def _answer_json(body: object, *, is_good: bool) -> web.Response:
    return web.Response(text=json.dumps(body) + "\n", status=200 if is_good else 503, content_type="application/json")
