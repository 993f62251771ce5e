"""One operator's node as a service: builds everything, runs every loop in one task group, stops cleanly, restarts from files.

A service is driven in two ways: `run` with a clock (the system's, or a virtual one that tests and the demo move), or `run_once`
for one pass over every step without any loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chains.base import Chain
from messages.digests import compute_committee_id, compute_vault_id, get_address
from messages.documents import Parameters, compute_digest, decode_document
from messages.errors import Rejected, Unavailable
from messages.outbox import Cursor
from relayer.clock import Clock, SystemClock, Wake
from relayer.config import Config, FeedTable, get_key_path, read_password
from relayer.database import decode_u64, encode_u64
from relayer.gossip import Gossip, MemoryBus
from relayer.keys import Journal, Secret, Signer, load_key_file
from relayer.log import make_logger
from relayer.node import MESSAGE_KINDS, Feed, Node, Planner, StepResult, Timing, run_step
from relayer.rules.plan import PlanNote
from relayer.rules.quorum import Committee, get_proposer, get_slot, verify_parameters
from relayer.rules.statements import SignedParameters
from relayer.store import Halt, PacketRecord, Store
from relayer.tasks import attest, observe, settle, submit, watch

ACCEPTED_PARAMETERS = "parameters"
"""Setting of the store: version (8 bytes) and digest of the newest parameters this node accepted."""

MIN_FOLLOW_S, MAX_FOLLOW_S = 1.0, 60.0
"""Pause before a stream of hints that ended is followed again."""

COURTESY_S, MAX_COURTESIES = 0.5, 8
"""A node without the turn waits so long, again after each news, before it computes a plan of its own to see whether there is work."""

NEWS_TURNS = 8
"""Turns of the event loop in which a hint gets from a socket to the loop that looks."""
TOGETHER_S = 0.05
"""Who plans waits so long for a look that is under way, again after each that brought news: the plan then covers both."""

QUARANTINE_MARGIN_S = 120
"""Beyond the longest family constant: clocks differ."""


@dataclass(frozen=True)
class ChainStatus:
    """One vault as this node sees it. Times in unix seconds; height None before the first proven head."""

    chain: str
    family: str
    vault_id: bytes
    height: int | None
    header_hash: bytes
    time: int
    outbox_sequence: int
    outbox_head: bytes
    inbox_sequence: int
    is_halted: bool


@dataclass(frozen=True)
class Status:
    """A snapshot for people and programs."""

    name: str
    operator: bytes
    now: int
    k: int
    r: int
    proposer: bytes
    operators: tuple[bytes, ...]
    threshold: int
    chains: tuple[ChainStatus, ...]
    packets: tuple[PacketRecord, ...]
    certified: tuple[bytes, ...]
    halts: tuple[Halt, ...]
    blames: tuple[tuple[str, str, str, int], ...]
    quarantine_until: int | None
    equivocations: int
    notes: tuple[PlanNote, ...]


class Service:
    """Build with `Service.open`; then `run` or `run_once`; then `close`."""

    def __init__(self, node: Node, journal: Journal) -> None:
        self.node = node
        self._journal = journal
        self._unsubscribe: list[Callable[[], None]] = []
        self._is_stopping = False
        self._followers: list[asyncio.Task[None]] = []
        self.last_steps: dict[str, int] = {}
        """When each loop of `run` last ended a step: a loop that hangs is seen by its silence."""

    @classmethod
    def open(
        cls,
        *,
        name: str,
        store_path: Path,
        journal_path: Path,
        operator_key: Secret,
        parameters: Parameters,
        chains: Sequence[Chain[Any, Any, Any, Any]],
        clock: Clock,
        gossip: Gossip,
        feeds: Sequence[Feed] = (),
        planner: Planner | None = None,
        timing: Timing | None = None,
        log: Any = None,
    ) -> Service:
        """Open the files of a node and put its parts together; nothing runs yet.

        Args:
            name: for logs.
            store_path: the node's store; made if it is missing.
            journal_path: the signer's journal; a missing one is made in quarantine: `Journal.create_first` is how the
                owner of a fresh key says that it never signed.
            operator_key: from `keys.load_key_file`.
            parameters: in force; every vault in it needs its chain.
            chains: one per vault, from `chains.registry`.
            clock: `SystemClock` or `VirtualClock`.
            gossip: carrier between operators.
            feeds: sources of signed prices.
            planner: the rules; `relayer.planner.RulesPlanner` by default.
            timing: how often to look and repeat.
            log: from `relayer.log.make_logger`.

        Raises:
            Rejected: files in use, damaged, too new or readable by others; chains and parameters do not fit (``vaults``);
                parameters that are not in force yet (``not_effective``).
        """
        if planner is None:
            from relayer.planner import RulesPlanner

            planner = RulesPlanner()
        if clock.now() < parameters.effective:
            raise Rejected(
                "these parameters are not in force yet: use the former set until then",
                got=clock.now(),
                expected=f">= {parameters.effective}",
                reason="not_effective",
            )
        by_vault: Mapping[bytes, Chain[Any, Any, Any, Any]] = {c.vault_id: c for c in chains}
        store = Store(store_path)
        journal: Journal | None = None
        try:
            longest = max((f.timeout_s for f in parameters.families), default=0)
            journal = Journal(journal_path, clock.now(), longest + QUARANTINE_MARGIN_S)
            committee_id = compute_committee_id(sorted(by_vault))
            signer = Signer(operator_key, journal, committee_id)
            node = Node(
                name,
                parameters,
                by_vault,
                store,
                signer,
                clock,
                gossip,
                feeds,
                planner,
                timing or Timing(),
                log or make_logger(),
            )
            tip = store.get_setting("journal_tip")
            if tip is not None and not journal.is_known_tip(tip):
                attest.quarantine(node, "the journal is older than the store: it was restored or lost")
            service = cls(node, journal)
        except BaseException:
            store.close()
            if journal is not None:
                journal.close()
            raise
        for kind in MESSAGE_KINDS:
            service._unsubscribe.append(gossip.subscribe(node.get_topic(kind), node.receive))
        return service

    # ---- running

    async def run(self) -> None:
        """Run every loop until `stop`; ends when all of them have ended. Errors that are nobody's but ours come out.

        Raises:
            StoreFailure: leave with its exit code. Any other exception: a bug; stop the process.
        """
        node, clock = self.node, self.node.clock
        timing = node.timing
        loops: list[tuple[str, Wake, Callable[[], float], Callable[[], Awaitable[str]]]] = [
            (f"watch {node.chains[v].chain_id}", node.watch_wakes[v], lambda: timing.poll_s, self._get_watch(v))
            for v in node.vault_ids
        ]
        loops += [
            (f"observe {node.chains[v].chain_id}", wake, lambda: timing.poll_s, self._get_observe(v))
            for v, wake in node.observe_wakes.items()
        ]
        loops += [
            ("settle", node.settle_wake, lambda: self._get_turn_in_s(timing.settle_s), self._settle_in_turn),
            ("attest", node.inbox_wake, self._get_attest_in_s, self._attest),
            ("submit", node.submit_wake, lambda: timing.submit_s, self._submit),
        ]
        async with asyncio.TaskGroup() as group:
            for name, wake, get_period_s, step in loops:
                group.create_task(clock.run(f"{node.name}/{name}", self._loop(name, wake, get_period_s, step)))
            self._followers = [
                group.create_task(self._follow(v, source))
                for v in (() if self._is_stopping else node.vault_ids)
                for source in node.chains[v].reader.sources
            ]

    async def _follow(self, vault_id: bytes, source: str) -> None:
        """Look at a chain as soon as one of its sources hints at news. Streams are a convenience: when one ends, nobody is blamed."""
        node, backoff_s = self.node, MIN_FOLLOW_S
        # where operators say what they read, there is nothing to watch before this one has read
        wake = node.observe_wakes.get(vault_id, node.watch_wakes[vault_id])
        chain, loop = node.chains[vault_id], asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                await chain.reader.follow(source, wake.set)
            except (Rejected, Unavailable) as error:
                node.log.debug("no hints", chain=chain.chain_id, source=source, reason=error.reason)
            else:
                return
            # only a stream that lasted ends the back-off
            backoff_s = MIN_FOLLOW_S if loop.time() - began_s > MAX_FOLLOW_S else min(MAX_FOLLOW_S, 2 * backoff_s)
            await asyncio.sleep(backoff_s)

    def _get_turn_in_s(self, longest_s: float) -> float:
        """A slot begins by the clock alone: nothing happens that could wake its proposer, or who waits with its early proposal."""
        turn_in_s = settle.get_turn_in_s(self.node)
        return longest_s if turn_in_s is None else min(longest_s, turn_in_s)

    def _get_attest_in_s(self) -> float:
        # Woken when it is time to say things again: else the first message of a plan would do it, in the middle of its agreement.
        longest_s = max(
            1.0, float(self.node.progress.last_publish_at + self.node.timing.republish_s - self.node.clock.now())
        )
        return self._get_turn_in_s(longest_s) if self.node.progress.waiting else longest_s

    async def _loop(
        self, name: str, wake: Wake, get_period_s: Callable[[], float], step: Callable[[], Awaitable[str]]
    ) -> None:
        backoff_s = 0.0
        self.last_steps[name] = self.node.clock.now()
        while not self._is_stopping:
            result = await step()
            self.last_steps[name] = self.node.clock.now()
            period_s = get_period_s()
            if result == StepResult.UNAVAILABLE:
                backoff_s = min(self.node.timing.backoff_max_s, max(period_s, backoff_s * 2))
            else:
                backoff_s = 0.0
            if not self._is_stopping:
                await self.node.clock.wait(wake, backoff_s or period_s)

    def stop(self) -> None:
        """Ask every loop to end after its present step."""
        self._is_stopping = self.node.is_stopping = True
        for follower in self._followers:
            follower.cancel()
        node = self.node
        for wake in (
            *node.watch_wakes.values(),
            *node.observe_wakes.values(),
            node.settle_wake,
            node.inbox_wake,
            node.submit_wake,
        ):
            wake.set()

    async def run_once(self) -> None:
        """One pass: observe and hear what others observed, watch every chain, read the mail, settle, read again, submit.

        For tests and one-shot commands.
        """
        for vault_id in self.node.observe_wakes:
            await self._get_observe(vault_id)()
        if self.node.observe_wakes:
            await self._attest()
        for vault_id in self.node.vault_ids:
            await self._get_watch(vault_id)()
        await self._attest()
        await self._settle()
        await self._attest()
        await self._submit()

    def close(self) -> None:
        """Close the files; safe to call twice."""
        for end in self._unsubscribe:
            end()
        self._unsubscribe.clear()
        if self._is_stopping:
            self.node.write_blames()
        self.node.store.close()
        self._journal.close()

    def _get_watch(self, vault_id: bytes) -> Callable[[], Awaitable[str]]:
        chain = self.node.chains[vault_id].chain_id

        async def run() -> str:
            result = await run_step(self.node, f"chain:{chain}", chain, lambda: watch.step(self.node, vault_id))
            # Proposals may have waited for these facts.
            if self.node.progress.waiting:
                self.node.inbox_wake.set()
            return result

        return run

    def _get_observe(self, vault_id: bytes) -> Callable[[], Awaitable[str]]:
        chain = self.node.chains[vault_id].chain_id

        async def run() -> str:
            return await run_step(self.node, f"observe:{chain}", chain, lambda: observe.step(self.node, vault_id))

        return run

    async def _settle_in_turn(self) -> str:
        """Settle; who has not the turn gives the proposer a moment first, whose proposal tells it that there is work."""
        node = self.node
        if not settle.is_turn(node):
            await run_step(node, "node", "node", lambda: settle.get_ready(node))
        for _ in range(MAX_COURTESIES):
            if self._is_stopping or settle.is_turn(node) or not await node.clock.wait(node.settle_wake, COURTESY_S):
                break
        await self._let_looks_end()
        return await self._settle()

    async def _let_looks_end(self) -> None:
        """Where chains finalize at one moment, one plan for all of them is sooner done than one after the other."""
        node = self.node
        for _ in range(
            NEWS_TURNS
        ):  # a look whose hint has arrived here, and nobody had time to read it, is under way too
            await asyncio.sleep(0)
        node.is_planner_waiting = True
        try:
            for _ in node.vault_ids:
                if not node.looking or self._is_stopping or not await node.clock.wait(node.settle_wake, TOGETHER_S):
                    break
        finally:
            node.is_planner_waiting = False

    async def _settle(self) -> str:
        return await run_step(self.node, "node", "node", lambda: settle.step(self.node))

    async def _attest(self) -> str:
        return await run_step(self.node, "node", "node", lambda: attest.step(self.node))

    async def _submit(self) -> str:
        return await run_step(self.node, "submit", "submit", lambda: submit.step(self.node))

    # ---- asking

    def get_status(self) -> Status:
        """What this node knows and does now."""
        node = self.node
        node.write_blames()
        committee, now, progress = node.get_committee(), node.clock.now(), node.progress
        k, r = get_slot(progress.base_k, progress.since, now, node.patience_s, len(committee.operators))
        packets = node.store.get_packets(limit=1000)
        return Status(
            name=node.name,
            operator=node.signer.operator,
            now=now,
            k=k,
            r=r,
            proposer=get_proposer(committee, k, r),
            operators=committee.operators,
            threshold=committee.threshold,
            chains=tuple(self._get_chain_status(v) for v in node.vault_ids),
            packets=packets,
            certified=tuple(p.commitment for p in packets if node.store.get_certificate_signatures(p) is not None),
            halts=node.store.get_halts(),
            blames=tuple((b.chain, b.source, b.reason, count) for b, count, _ in node.store.get_blames()),
            quarantine_until=node.signer.journal.quarantine_until,
            equivocations=len(node.store.get_evidence()),
            notes=progress.result.notes if progress.result is not None else (),
        )

    def _get_chain_status(self, vault_id: bytes) -> ChainStatus:
        node, chain = self.node, self.node.chains[vault_id]
        head = node.store.get_head(vault_id)
        cursor: Cursor = node.store.get_cursor(vault_id)
        return ChainStatus(
            chain.chain_id,
            chain.family,
            vault_id,
            None if head is None else head.point.height,
            b"" if head is None else head.point.header_hash,
            0 if head is None else head.point.time,
            cursor.sequence,
            cursor.head,
            node.states.get_newest(vault_id).inbox_sequence,
            node.store.is_halted(f"chain:{chain.chain_id}"),
        )


# ---- from a configuration ------------------------------------------------------------------------------------------------


def open_configured(
    config: Config,
    *,
    clock: Clock | None = None,
    gossip: Gossip | None = None,
    sims: Mapping[str, Any] | None = None,
    log: Any = None,
) -> Service:
    """Build a node from its configuration: keys, chains, feeds, gossip, files. Nothing runs yet.

    Args:
        config: from `relayer.config.load_config`.
        clock: the system's by default.
        gossip: a carrier that somebody else keeps; by default the configured one (see `run_configured`).
        sims: simulated networks by chain id, for endpoints with "sim:" addresses.
        log: by default as configured.

    Raises:
        Rejected: whatever is wrong with files, keys or addresses, with what to do.
    """
    from chains.registry import build_chain

    log = log or make_logger(level=config.log.level, as_json=config.log.json_lines)
    is_throwaway = config.operator.allow_throwaway_key
    operator_key = load_key_file(
        get_key_path(config.operator.key, config.path),
        read_password(config.operator.password, config.path),
        is_throwaway=is_throwaway,
    )
    operator = get_address(operator_key.reveal())
    if not any(operator in v.operators for v in config.parameters.vaults):
        log.warning("this key is no operator at the creation of any vault; a rotation may have named it since")
    chains = []
    for chain in config.chains:
        submit_key: bytes | None = None
        reference = config.submit_keys.get(chain.chain_id)
        if reference is not None:
            secret = load_key_file(
                get_key_path(reference.key, config.path),
                read_password(reference.password, config.path),
                is_throwaway=is_throwaway,
            )
            submit_key = secret.reveal()
            if submit_key == operator_key.reveal():
                raise Rejected(
                    f"the key that pays on {chain.chain_id} is the operator key: use one of its own", reason="same_key"
                )
        chains.append(build_chain(chain, submit_key, sims))
    feeds = [make_feed(config, feed) for feed in config.feeds]
    service = Service.open(
        name=config.name,
        store_path=config.store_path,
        journal_path=config.journal_path,
        operator_key=operator_key,
        parameters=config.parameters,
        chains=chains,
        clock=clock or SystemClock(),
        gossip=gossip or make_gossip(config, operator, log),
        feeds=feeds,
        timing=config.timing,
        log=log,
    )
    try:
        verify_configured_parameters(config, service.node.clock.now(), service.node)
    except BaseException:
        service.close()
        raise
    return service


def verify_configured_parameters(config: Config, now: int, node: Node | None = None) -> None:
    """Check that the operators' quorum signed the parameters (data.md 2) and that they do not go back; remember what was accepted.

    The signatures are judged once, by the set in force when a node first uses a version: after a rotation the former set's
    signatures still stand for what it decided. Version 1 may be named by its digest in the configuration instead: before it
    there is no committee that could have signed.

    Args:
        config: at this time (`Config.at`).
        now: unix seconds.
        node: whose facts tell the set in force and whose store remembers; without one the sets at creation judge.

    Raises:
        Rejected: ``unsigned_parameters``, ``old_parameters``, ``no_file``, ``malformed``, or as
            `relayer.rules.quorum.verify_parameters`.
    """
    parameters = config.parameters
    digest = compute_digest(parameters)
    accepted = None if node is None else node.store.get_setting(ACCEPTED_PARAMETERS)
    if accepted is not None:
        version = decode_u64(accepted[:8])
        if accepted[8:] == digest:
            return
        if parameters.version <= version:
            raise Rejected(
                "this node has used later parameters, or others under this version: they never go back",
                got=f"version {parameters.version} 0x{digest.hex()}",
                expected=f"after version {version} 0x{accepted[8:].hex()}",
                reason="old_parameters",
            )
    if parameters.version != 1 or digest != config.genesis_digest:
        _verify_parameter_signatures(config, now, digest, node)
    if node is not None:
        node.store.record_setting(ACCEPTED_PARAMETERS, encode_u64(parameters.version) + digest)


def _verify_parameter_signatures(config: Config, now: int, digest: bytes, node: Node | None) -> None:
    if config.signatures_path is None:
        raise Rejected(
            "nobody signed these parameters: parameter_signatures names the file that `relayer parameters sign` makes; for"
            " version 1 genesis_parameters may name their digest, as the operators agreed on it",
            got=f"version {config.parameters.version} 0x{digest.hex()}",
            expected=None if config.genesis_digest is None else f"0x{config.genesis_digest.hex()}",
            reason="unsigned_parameters",
        )
    if not config.signatures_path.is_file():
        raise Rejected(f"there is no file {config.signatures_path}", reason="no_file")
    signed = decode_document(SignedParameters, config.signatures_path.read_bytes().strip(), max_bytes=65_536)
    vaults = config.parameters.vaults
    if node is not None:
        committees = {node.get_committee()}
    else:
        committee_id = compute_committee_id(sorted(compute_vault_id(v.chain, v.account) for v in vaults))
        committees = {Committee(committee_id, 0, v.operators, v.threshold) for v in vaults}
    for committee in committees:
        verify_parameters(signed, digest, config.parameters.effective, now, committee)


def make_feed(config: Config, table: FeedTable) -> Feed:
    """A configured source of signed prices; its table says exactly one of path and url."""
    from relayer.feeds import FileFeed, HttpFeed

    if table.path is not None:
        return FileFeed(config.resolve(table.path))
    url = table.url or ""
    return HttpFeed(url, urlsplit(url).hostname or "feed")


def make_gossip(config: Config, operator: bytes, log: Any) -> Gossip:
    """The configured carrier; one in memory reaches nobody else."""
    if config.gossip.kind == "memory":
        return MemoryBus().connect(config.name)
    from relayer.mqtt import MqttGossip, MqttSettings

    def resolve(path: str | None) -> Path | None:
        return None if path is None else config.resolve(path)

    operators = sorted({o for v in config.parameters.vaults for o in v.operators})
    settings = MqttSettings(
        host=config.gossip.host or "",
        port=config.gossip.port or 0,
        operator=operator,
        operators=tuple(operators),
        root=config.gossip.root,
        password_file=resolve(config.gossip.password_file),
        ca_file=resolve(config.gossip.ca_file),
        cert_file=resolve(config.gossip.cert_file),
        key_file=resolve(config.gossip.key_file),
    )
    return MqttGossip(settings, log)


async def run_service(service: Service, stop: asyncio.Event) -> None:
    """Run a service with its carrier until ``stop`` is set: every loop ends its step, the carrier drains, the files close.

    Raises:
        StoreFailure: leave with its exit code. Anything else: a bug; the files are closed all the same.
    """
    gossip = service.node.gossip
    keeper = getattr(gossip, "run", None)

    async def wait_and_stop() -> None:
        await stop.wait()
        service.stop()

    async def run_loops() -> None:
        try:
            await service.run()
        finally:
            if keeper is not None:
                gossip.stop()  # type: ignore[attr-defined]  # a carrier with `run` has `stop`

    if keeper is not None:
        gossip.on_connect = service.node.publish_soon  # type: ignore[attr-defined]  # as above
    waiter = asyncio.create_task(wait_and_stop())
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run_loops())
            if keeper is not None:
                group.create_task(keeper())
    finally:
        waiter.cancel()
        service.close()
