"""A node's records, read beside a running node or after it: what every reading command stands on. Opens no network.

The store is opened read-only and without its lock, so a node may run meanwhile; nothing here can write.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from messages.digests import compute_committee_id, compute_vault_id
from messages.documents import (
    Cut,
    CutEntry,
    MarketSnapshot,
    OpenPacket,
    OpenPackets,
    Parameters,
    Proposal,
    SignedMark,
    SignedReport,
    VaultParameters,
    decode_document,
)
from messages.errors import Rejected
from messages.outbox import TrustTier
from messages.wire import decode_envelope
from relayer.database import get_migration_names, open_reader, verify_migrations_known
from relayer.migrations import store_migrations
from relayer.proof_file import Anchor
from relayer.rules.ledger import Ledger, VaultState, compute_ledger, get_state_at, get_vault_id
from relayer.rules.quorum import (
    MAX_PROPOSAL_ENVELOPE_BYTES,
    Ballot,
    Committee,
    Fate,
    get_fate,
    get_quorum_votes,
)
from relayer.states import VaultStates
from relayer.store import HeadRecord, Store

LIVE_S = 300
"""A node whose newest record is younger runs now: ages are counted on this machine's clock. Otherwise from its last record."""

PRICE_MEMORY_S = 3 * 86_400
TIERS = {1: "light client", 2: "staked header", 3: "attested", 4: "RPC quorum", 5: "RPC"}


def describe_tier(tier: TrustTier) -> str:
    """Text of a trust tier with its parameters (protocol.md 10): "1 light client", "3 attested 3/4"."""
    name = f"{tier.level} {TIERS.get(tier.level, '?')}"
    return f"{name} {tier.m}/{tier.n}" if tier.n else name


def get_tier_data(tier: TrustTier) -> dict[str, object]:
    """A trust tier for programs: its level, and m of n operators where it rests on their word (0 of 0 elsewhere)."""
    return {"tier": tier.level, "tier_m": tier.m, "tier_n": tier.n, "tier_text": describe_tier(tier)}


class ReadOnlyStore(Store):
    """The node's store for reading: no lock, no write, and the same checks when it is opened.

    Raises (on opening):
        Rejected: reasons ``no_store``, ``too_new``, ``too_old``, ``corrupt``, ``chain_broken``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = open_reader(path)
        try:
            # One snapshot for the whole command: a node that writes meanwhile changes nothing that is shown together.
            self._db.execute("BEGIN")
            verify_migrations_known(self._db, store_migrations, "the store")
            self._verify_complete()
            self._verify_chains(READ_CHECKED_FACTS)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise Rejected(
                f"the store {path} cannot be read: keep it for analysis and rebuild it from the chains",
                got=str(error),
                reason="corrupt",
            ) from error
        except BaseException:
            self._db.close()
            raise

    def _verify_complete(self) -> None:
        known = set(get_migration_names(store_migrations))
        is_made = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone()
        done = {row[0] for row in self._db.execute("SELECT name FROM _sqlite_migrations")} if is_made else set()
        if known - done:
            raise Rejected(
                f"the store {self.path} was not finished by this version: start the node once, it brings the file up to date",
                got=sorted(done),
                expected=sorted(known),
                reason="too_old",
            )

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._db.close()

    def find_facts(self, digits: str) -> list[tuple[bytes, int]]:
        """(vault id, sequence) of the facts whose head begins with hex digits: trades and requests go by it."""
        low, high = _get_range(digits)
        rows = self._db.execute(
            "SELECT vault_id, sequence FROM facts WHERE head BETWEEN ? AND ? ORDER BY vault_id, sequence LIMIT 20",
            (low, high),
        )
        return [(bytes(vault_id), int.from_bytes(sequence, "big")) for vault_id, sequence in rows]

    def find_documents(self, kind: str, digits: str) -> list[bytes]:
        """Digests of the documents of a kind that begin with hex digits."""
        rows = self._db.execute(
            "SELECT digest FROM documents WHERE kind = ? AND digest BETWEEN ? AND ? ORDER BY digest LIMIT 20",
            (kind, *_get_range(digits)),
        )
        return [bytes(row[0]) for row in rows]

    def iterate_documents(self, kind: str) -> Iterator[tuple[bytes, bytes]]:
        """(digest, body) of every document of a kind, by slot."""
        rows = self._db.execute("SELECT digest, body FROM documents WHERE kind = ? ORDER BY k, r, digest", (kind,))
        for digest, body in rows:
            yield bytes(digest), bytes(body)

    def get_last_record_time(self) -> int:
        """Unix seconds (of the node's clock) of the newest thing on record; 0 where there is nothing."""
        latest = 0
        for query in (
            "SELECT max(seen_at) FROM documents",
            "SELECT max(seen_at) FROM packets",
            "SELECT max(raised_at) FROM halts",
            "SELECT max(last_at) FROM blames",
        ):
            latest = max(latest, self._db.execute(query).fetchone()[0] or 0)
        for query in ("SELECT max(time) FROM headers", "SELECT max(stamp) FROM prices"):
            latest = max(latest, int.from_bytes(self._db.execute(query).fetchone()[0] or b"", "big"))
        return latest


def _get_range(digits: str) -> tuple[bytes, bytes]:
    return bytes.fromhex(digits.ljust(64, "0")), bytes.fromhex(digits.ljust(64, "f"))


READ_CHECKED_FACTS = 20_000
"""Facts per vault whose hash chain a reading command checks, newest first; `relayer replay` checks everything."""


@dataclass(frozen=True)
class Moment:
    """The time that ages are counted from. ``is_live``: this machine's clock; otherwise the node's last record."""

    now: int
    last_record: int
    is_live: bool


class View:
    """Records of one node with the parameters in force; everything shown is computed from facts.

    Args:
        name: of the node.
        store: opened for reading.
        parameters: in force.
        wall: unix seconds of this machine.
    """

    def __init__(self, name: str, store: ReadOnlyStore, parameters: Parameters, wall: int) -> None:
        self.name = name
        self.store = store
        self.parameters = parameters
        self.vaults: Mapping[bytes, VaultParameters] = {get_vault_id(v): v for v in parameters.vaults}
        self.vault_ids = tuple(sorted(self.vaults))
        self.shown_vault_ids = tuple(sorted(self.vault_ids, key=lambda v: (self.vaults[v].chain, v)))
        """The same in the order of chain names, for people."""
        self.committee_id = compute_committee_id(self.vault_ids)
        self.states = VaultStates(store, parameters)
        self._wall = wall
        last = store.get_last_record_time()
        is_live = abs(wall - last) <= LIVE_S
        self.moment = Moment(wall if is_live else last, last, is_live)

    @property
    def now(self) -> int:
        """The time that ages are counted from."""
        return self.moment.now

    @property
    def judge_time(self) -> int:
        """A time (unix seconds) at which no claim on record lies in the future: every one was judged by the node when it came.

        A node's clock may be virtual and ahead of this machine's; its store does not say when it stopped, but never that early.
        """
        last = self.moment.last_record
        return self._wall if self._wall >= last else last + 86_400

    def get_chain(self, vault_id: bytes) -> str:
        """CAIP-2 name of a vault's chain."""
        return self.vaults[vault_id].chain

    def find_vault(self, text: str) -> bytes:
        """Vault id of a CAIP-2 name, of the last part of one, or of the first hex digits of a vault id.

        Raises:
            Rejected: none or several; reason ``unknown_vault``.
        """
        wanted = text.removeprefix("0x").lower()
        found = [
            vault_id
            for vault_id, vault in self.vaults.items()
            if text in {vault.chain, vault.chain.partition(":")[2]}
            or (len(wanted) >= 4 and vault_id.hex().startswith(wanted))
        ]
        if len(found) != 1:
            raise Rejected(
                "no single vault has this name",
                got=text,
                expected=" or ".join(f"{self.get_chain(v)} (0x{v.hex()[:8]})" for v in self.vault_ids),
                reason="unknown_vault",
            )
        return found[0]

    # ---- what is proven

    @cached_property
    def heads(self) -> Mapping[bytes, HeadRecord]:
        """Newest proven head per vault, for those that have one."""
        heads = {vault_id: self.store.get_head(vault_id) for vault_id in self.vault_ids}
        return {vault_id: head for vault_id, head in heads.items() if head is not None}

    @cached_property
    def newest_states(self) -> Mapping[bytes, VaultState]:
        """Every vault folded up to the newest fact, controls as of the newest proven time."""
        out = {}
        for vault_id, state in self.states.get_all_newest().items():
            head = self.heads.get(vault_id)
            out[vault_id] = state if head is None else get_state_at(state, max(head.point.time, state.last_stamp))
        return out

    def get_cut(self) -> Cut | None:
        """The newest cut; None while a vault has no proven head."""
        if len(self.heads) < len(self.vault_ids):
            return None
        return Cut(
            tuple(
                CutEntry(v, h.point.height, h.point.header_hash, h.point.time, h.sequence, h.head)
                for v, h in sorted(self.heads.items())
            )
        )

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger at the newest cut.

        Raises:
            Rejected: a vault has no proven head yet; reason ``no_cut``.
        """
        cut = self.get_cut()
        if cut is None:
            missing = [self.get_chain(v) for v in self.vault_ids if v not in self.heads]
            raise Rejected(
                f"no proven state of {', '.join(missing)} is on record yet: let the node run until its first finalized header",
                reason="no_cut",
            )
        states = {e.vault_id: self.states.get_at(e.vault_id, e.outbox_sequence) for e in cut.entries}
        return compute_ledger(states, cut, self.parameters)

    def get_trust(self, vault_id: bytes) -> dict[str, object]:
        """Tier, height and age of what is known of a vault: goes with every number that is shown."""
        state, head = self.newest_states[vault_id], self.heads.get(vault_id)
        return {
            **get_tier_data(state.tier),
            "height": 0 if head is None else head.point.height,
            "time": 0 if head is None else head.point.time,
            "age_s": 0 if head is None else max(0, self.now - head.point.time),
        }

    # ---- committee, market, open packets

    @cached_property
    def committee(self) -> Committee:
        """The operator set in force."""
        states = [get_state_at(s, max(self.now, s.last_stamp)) for s in self.states.get_all_newest().values()]
        newest = max(states, key=lambda s: s.operator_epoch)
        return Committee(self.committee_id, newest.operator_epoch, newest.operators, newest.threshold)

    @cached_property
    def open_packets(self) -> OpenPackets:
        """The packets with m votes that the newest cut does not settle."""
        ledger = self.ledger
        packets = []
        for p in self.store.get_packets("open"):
            entry, state = ledger.entries[p.vault_id], ledger.states[p.vault_id]
            if get_fate(p.sequence, p.timeout, state.inbox_sequence, entry.time) is not Fate.OPEN:
                continue
            votes = get_quorum_votes(Ballot(p.k, self.store.get_votes(p.plan_digest)), p.plan_digest, self.committee)
            packets.append(
                OpenPacket(p.vault_id, p.operator_epoch, p.sequence, p.timeout, p.value, p.plan_digest, votes)
            )
        return OpenPackets(tuple(packets))

    @cached_property
    def market(self) -> MarketSnapshot:
        """The snapshot that a proposal made now would carry: from signed prices on record.

        Where no price is on record (the node has no feed of its own) the snapshot of the newest proposal serves.
        """
        from relayer.rules.market import compute_snapshot, get_settlements_needed

        now = max(self.now, self.store.get_number("market_now"))
        since = max(0, now - PRICE_MEMORY_S)
        reports = [decode_document(SignedReport, data) for data in self.store.get_prices("report", since=since)]
        marks = [decode_document(SignedMark, data) for data in self.store.get_prices("mark", since=since)]
        if not reports:
            newest = max(self.iterate_proposals(), key=lambda p: p.market.now, default=None)
            if newest is not None:
                return newest.market
        return compute_snapshot(now, reports, marks, get_settlements_needed(self.ledger, now))

    def iterate_proposals(self) -> Iterator[Proposal]:
        """Every proposal on record, newest slot first."""
        for data in self.store.get_documents("proposal", limit=MAX_PROPOSALS):
            yield decode_document(Proposal, decode_envelope(data, MAX_PROPOSAL_ENVELOPE_BYTES).body)


MAX_PROPOSALS = 100_000


@dataclass(frozen=True)
class Loaded:
    """What reading commands need of a configuration."""

    name: str
    store_path: Path
    parameters: Parameters
    anchors: Mapping[bytes, Anchor]


def load(config_path: Path) -> Loaded:
    """Read a configuration for reading commands; touches neither keys nor endpoints.

    Raises:
        Rejected: it is wrong.
    """
    from relayer.config import load_config

    config = load_config(config_path).at(int(time.time()))
    anchors: dict[bytes, Anchor] = {
        compute_vault_id(c.chain_id, c.vault_account): Anchor(
            c.chain_id, c.family, c.vault_account, c.checkpoint, c.settings
        )
        for c in config.chains
    }
    return Loaded(config.name, config.store_path, config.parameters, anchors)


@contextmanager
def open_view(loaded: Loaded) -> Iterator[View]:
    """Open a node's records; the store is closed at the end.

    Raises:
        Rejected: the store cannot be used.
    """
    store = ReadOnlyStore(loaded.store_path)
    try:
        yield View(loaded.name, store, loaded.parameters, int(time.time()))
    finally:
        store.close()
