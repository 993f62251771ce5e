"""The node's memory: what was proven, what was said, what was done. Nothing else survives a restart, and all of this does.

Facts are hash-chained per vault, light-client states and proven heads per chain; the chains are checked when the file is
opened, documents carry their own digest, votes and certificates their signatures. Everything that belongs together is written
in one transaction: header, head proof, facts and snapshot (style.md 3.5). Intents come before signatures, raw transactions
before sending (protocol.md 9).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chains.base import Blame, Point, SignedTx
from messages.digests import Certificate
from messages.documents import Vote
from messages.errors import Rejected
from messages.outbox import Cursor, Fact, decode_fact, encode_fact, get_start_cursor
from messages.packet import compute_commitment
from relayer.database import DatabaseFile, compute_chain_hash, decode_u64, encode_u64
from relayer.killpoints import reach
from relayer.migrations import store_migrations

SNAPSHOT_EVERY = 1000
"""Facts between two stored vault states: a restart folds at most this many per vault."""

SNAPSHOTS_KEPT = 4
"""So many of the newest stored states stay; of older ones those at multiples of `SPARSE_SNAPSHOT_EVERY`."""

SPARSE_SNAPSHOT_EVERY = 20_000

CHECKED_FACTS = 200_000
"""Facts per vault whose chain is checked when the store is opened (newest first); `verify_all` checks every one."""

KEPT_TRUSTED = 256
"""Light-client states per chain that stay usable for verifying an older update of a peer."""

MAX_DETAIL_CHARACTERS = 500


@dataclass(frozen=True)
class HeaderRecord:
    """One step of a light client: where it came to, the claim it came by (bootstrap or update) and the state after it.

    ``state`` is what ``trusted`` encodes, where whoever made the record has it at hand; it is not stored.
    """

    point: Point
    kind: str
    claim: bytes
    trusted: bytes
    state: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class HeadRecord:
    """A proven outbox position with its proof."""

    vault_id: bytes
    point: Point
    sequence: int
    head: bytes
    proof: bytes


@dataclass(frozen=True)
class PacketRecord:
    """An inbox packet of a plan with m votes. status: open, done, refused or absent."""

    vault_id: bytes
    sequence: int
    commitment: bytes
    operator_epoch: int
    timeout: int
    value: bytes
    plan_digest: bytes
    k: int
    purpose: str
    status: str
    seen_at: int


@dataclass(frozen=True)
class Halt:
    """A durable stop of one subject (``chain:<id>``, ``node`` or ``operator:<address>``) and who has agreed to end it."""

    id: int
    subject: str
    reason: str
    detail: str
    raised_at: int
    cleared_by: tuple[str, ...]

    @property
    def is_active(self) -> bool:
        """Two different people must clear a halt (incident G8)."""
        return len(self.cleared_by) < 2


@dataclass(frozen=True)
class TxRecord:
    """A stored transaction with what became of it."""

    id: int
    signed: SignedTx
    commitment: bytes
    prepared_at: int
    sent_at: int | None
    outcome: str


class Store:
    """Opened by exactly one process; see the module. All times are unix seconds given by the caller.

    Raises (on opening):
        Rejected: as `relayer.database.DatabaseFile`, and ``chain_broken`` where a hash chain does not hold.
    """

    def __init__(self, path: Path) -> None:
        self._file = DatabaseFile(path, store_migrations, "the store")
        self._db = self._file.connection
        self.path = path
        try:
            self._verify_chains(CHECKED_FACTS)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is recorded inside is written at once and whole at the end, or not at all. Nothing may be awaited inside."""
        with self._file.transaction():
            yield

    # ---- settings ---------------------------------------------------------------------------------------------------

    def get_setting(self, key: str) -> bytes | None:
        """One value by its name."""
        row = self._db.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def get_number(self, key: str) -> int:
        """One whole number by its name; 0 where it was never written."""
        value = self.get_setting(key)
        return 0 if value is None else decode_u64(value)

    def record_setting(self, key: str, value: bytes) -> None:
        """Write one value."""
        with self._file.transaction() as db:
            _put_setting(db, key, value)

    def record_settings(self, values: Mapping[str, bytes]) -> None:
        """Write several values, each by its name, all or nothing."""
        with self._file.transaction() as db:
            for key, value in values.items():
                _put_setting(db, key, value)

    # ---- chains: headers, heads, facts ------------------------------------------------------------------------------

    def record_headers(self, chain: str, headers: Sequence[HeaderRecord]) -> None:
        """Record light-client steps for which nothing could be collected yet."""
        with self._file.transaction() as db:
            _insert_headers(db, chain, headers)

    def record_collected(
        self,
        chain: str,
        headers: Sequence[HeaderRecord],
        head: HeadRecord,
        facts: Sequence[Fact],
        snapshots: Sequence[tuple[int, bytes]] = (),
    ) -> None:
        """Record light-client steps, the head proven there, the facts behind it and vault states: all or nothing.

        Args:
            chain: CAIP-2 name.
            headers: steps not recorded yet, oldest first.
            head: the proven position after the last fact.
            facts: in order, from the recorded cursor on.
            snapshots: (sequence, encoded vault state) for some sequences among the facts.

        Raises:
            Rejected: the facts do not continue what is recorded; reason ``not_next``. StoreFailure: see the module.
        """
        cursor = self._get_continued(head.vault_id, facts, head.sequence, head.head)
        reach("before_facts")
        with self._file.transaction() as db:
            _insert_headers(db, chain, headers)
            self._insert_facts(db, cursor, facts, snapshots)
            _insert_head(db, head)
        reach("after_facts")

    def record_part(self, vault_id: bytes, facts: Sequence[Fact], snapshots: Sequence[tuple[int, bytes]] = ()) -> None:
        """Record some of the facts behind a proven head that is itself recorded with the last of them: all or nothing.

        Until then the newest head on record lies before the newest facts: they count in no cut, and no time was proven for them. Arguments
        and errors as `record_collected`.
        """
        if not facts:
            return
        cursor = self._get_continued(vault_id, facts, facts[-1].sequence, facts[-1].head)
        reach("before_facts")
        with self._file.transaction() as db:
            self._insert_facts(db, cursor, facts, snapshots)
        reach("after_facts")

    def _get_continued(self, vault_id: bytes, facts: Sequence[Fact], sequence: int, head: bytes) -> Cursor:
        """The recorded cursor, once the facts continue it up to a position."""
        cursor = self.get_cursor(vault_id)
        expected = Cursor(vault_id, cursor.sequence + len(facts), facts[-1].head if facts else cursor.head)
        if (facts and facts[0].sequence != cursor.sequence + 1) or expected != Cursor(vault_id, sequence, head):
            raise Rejected(
                "these facts do not continue the recorded ones",
                got=sequence,
                expected=expected.sequence,
                reason="not_next",
            )
        return cursor

    def _insert_facts(
        self, db: sqlite3.Connection, cursor: Cursor, facts: Sequence[Fact], snapshots: Sequence[tuple[int, bytes]]
    ) -> None:
        vault_id, stream = cursor.vault_id, b"facts/" + cursor.vault_id
        previous = self._get_chain_hash(vault_id, cursor.sequence)
        rows = []
        for fact in facts:
            record = encode_fact(fact)
            previous = compute_chain_hash(stream, fact.sequence, previous, fact.head, record)
            rows.append((vault_id, encode_u64(fact.sequence), fact.head, previous, record))
        db.executemany("INSERT INTO facts VALUES (?, ?, ?, ?, ?)", rows)
        _put_tip(db, stream, cursor.sequence + len(facts), previous)
        for sequence, state in snapshots:
            db.execute(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (vault_id, encode_u64(sequence), _digest_state(vault_id, sequence, state), state),
            )
            # Old states are only wanted for old cuts: a sparse row of them, or a big book would fill the disk.
            stale = sequence - SNAPSHOTS_KEPT * SNAPSHOT_EVERY
            if stale > 0 and stale % SPARSE_SNAPSHOT_EVERY:
                db.execute("DELETE FROM snapshots WHERE vault_id = ? AND sequence = ?", (vault_id, encode_u64(stale)))

    def get_trusted(
        self, chain: str, *, below_height: int | None = None, upto_time: int | None = None
    ) -> tuple[Point, bytes] | None:
        """The newest usable light-client state of a chain, or the newest below a height and of a time (unix seconds) or before."""
        row = self._db.execute(
            "SELECT height, header_hash, time, trusted, trusted_digest FROM headers"
            " WHERE chain = ? AND trusted IS NOT NULL AND height < ? AND time <= ? ORDER BY height DESC, i DESC LIMIT 1",
            (
                chain,
                b"\xff" * 9 if below_height is None else encode_u64(below_height),
                b"\xff" * 9 if upto_time is None else encode_u64(upto_time),
            ),
        ).fetchone()
        return None if row is None else _read_trusted(row)

    def get_trusted_at(self, chain: str, height: int) -> tuple[Point, bytes] | None:
        """The light-client state at exactly one height."""
        row = self._db.execute(
            "SELECT height, header_hash, time, trusted, trusted_digest FROM headers"
            " WHERE chain = ? AND trusted IS NOT NULL AND height = ? ORDER BY i DESC LIMIT 1",
            (chain, encode_u64(height)),
        ).fetchone()
        return None if row is None else _read_trusted(row)

    def get_header_claim(self, chain: str, height: int, *, may_bootstrap: bool = False) -> bytes | None:
        """The update that led to the state at a height: evidence for others. ``may_bootstrap``: or the bootstrap, where one is an update too."""
        row = self._db.execute(
            "SELECT claim, claim_digest FROM headers WHERE chain = ? AND height = ? AND (kind = 'update' OR ?)"
            " ORDER BY i DESC LIMIT 1",
            (chain, encode_u64(height), may_bootstrap),
        ).fetchone()
        if row is None:
            return None
        return _verify_digest("a light-client claim", bytes(row[0]), bytes(row[1]))

    def iterate_headers(self, chain: str) -> Iterator[HeaderRecord]:
        """Every recorded step of a chain's light client, oldest first; ``trusted`` is empty where it was dropped."""
        rows = self._db.execute(
            "SELECT height, header_hash, time, kind, claim, coalesce(trusted, x'') FROM headers WHERE chain = ? ORDER BY i",
            (chain,),
        )
        for height, header_hash, time, kind, claim, trusted in rows:
            yield HeaderRecord(Point(decode_u64(height), header_hash, decode_u64(time)), kind, claim, trusted)

    def get_cursor(self, vault_id: bytes) -> Cursor:
        """How far a vault's outbox is on record."""
        row = self._db.execute(
            "SELECT sequence, head FROM facts WHERE vault_id = ? ORDER BY sequence DESC LIMIT 1", (vault_id,)
        ).fetchone()
        return get_start_cursor(vault_id) if row is None else Cursor(vault_id, decode_u64(row[0]), bytes(row[1]))

    def get_head(self, vault_id: bytes) -> HeadRecord | None:
        """The newest proven head of a vault."""
        row = self._db.execute(
            _SELECT_HEAD + " WHERE vault_id = ? ORDER BY i DESC LIMIT 1",
            (vault_id,),
        ).fetchone()
        return None if row is None else _read_head(vault_id, row)

    def get_head_at(self, vault_id: bytes, height: int) -> HeadRecord | None:
        """The head proven at exactly one height."""
        row = self._db.execute(
            _SELECT_HEAD + " WHERE vault_id = ? AND height = ? LIMIT 1",
            (vault_id, encode_u64(height)),
        ).fetchone()
        return None if row is None else _read_head(vault_id, row)

    def get_head_covering(self, vault_id: bytes, sequence: int) -> HeadRecord | None:
        """The oldest proven head that covers a packet: what proves a fact to others."""
        row = self._db.execute(
            _SELECT_HEAD + " WHERE vault_id = ? AND sequence >= ? ORDER BY i LIMIT 1",
            (vault_id, encode_u64(sequence)),
        ).fetchone()
        return None if row is None else _read_head(vault_id, row)

    def iterate_heads(self, vault_id: bytes) -> Iterator[HeadRecord]:
        """Every proven head of a vault, oldest first."""
        rows = self._db.execute(
            _SELECT_HEAD + " WHERE vault_id = ? ORDER BY i",
            (vault_id,),
        )
        for row in rows:
            yield _read_head(vault_id, row)

    def get_fact(self, vault_id: bytes, sequence: int) -> Fact | None:
        """One fact."""
        row = self._db.execute(
            "SELECT record FROM facts WHERE vault_id = ? AND sequence = ?", (vault_id, encode_u64(sequence))
        ).fetchone()
        return None if row is None else decode_fact(bytes(row[0]))

    def get_fact_head(self, vault_id: bytes, sequence: int) -> bytes | None:
        """The outbox head right after a recorded packet; the vault id itself for 0; None where it is not on record."""
        if sequence == 0:
            return vault_id
        row = self._db.execute(
            "SELECT head FROM facts WHERE vault_id = ? AND sequence = ?", (vault_id, encode_u64(sequence))
        ).fetchone()
        return None if row is None else bytes(row[0])

    def iterate_facts(self, vault_id: bytes, after: int = 0, upto: int | None = None) -> Iterator[Fact]:
        """Facts of a vault in order, one at a time (memory does not grow with the store)."""
        rows = self._db.execute(
            "SELECT record FROM facts WHERE vault_id = ? AND sequence > ? AND sequence <= ? ORDER BY sequence",
            (vault_id, encode_u64(after), b"\xff" * 8 if upto is None else encode_u64(upto)),
        )
        for (record,) in rows:
            yield decode_fact(bytes(record))

    def get_snapshot(self, vault_id: bytes, upto: int) -> tuple[int, bytes] | None:
        """The newest stored vault state at or below a sequence.

        Raises:
            Rejected: the stored state was changed; reason ``chain_broken``.
        """
        row = self._db.execute(
            "SELECT sequence, state, digest FROM snapshots WHERE vault_id = ? AND sequence <= ?"
            " ORDER BY sequence DESC LIMIT 1",
            (vault_id, encode_u64(upto)),
        ).fetchone()
        if row is None:
            return None
        sequence, state = decode_u64(row[0]), bytes(row[1])
        if _digest_state(vault_id, sequence, state) != bytes(row[2]):
            raise _broken(f"snapshot of vault {vault_id.hex()} at {sequence}")
        return sequence, state

    # ---- documents and votes ----------------------------------------------------------------------------------------

    def record_document(
        self, kind: str, digest: bytes, body: bytes, now: int, *, k: int = 0, r: int = 0, operator: bytes = b""
    ) -> None:
        """Keep a document under its digest; keeping it twice is keeping it once."""
        with self._file.transaction() as db:
            db.execute(
                "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (digest, kind, encode_u64(k), encode_u64(r), operator, body, now),
            )

    def get_document(self, digest: bytes) -> bytes | None:
        """A document by its digest."""
        row = self._db.execute("SELECT body FROM documents WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    def get_documents(self, kind: str, k: int | None = None, *, limit: int = 100) -> list[bytes]:
        """Documents of a kind, newest slot first, of one k if given."""
        if k is None:
            rows = self._db.execute(
                "SELECT body FROM documents WHERE kind = ? ORDER BY k DESC, r DESC, seen_at DESC LIMIT ?", (kind, limit)
            )
        else:
            rows = self._db.execute(
                "SELECT body FROM documents WHERE kind = ? AND k = ? ORDER BY r DESC, seen_at DESC LIMIT ?",
                (kind, encode_u64(k), limit),
            )
        return [bytes(row[0]) for row in rows]

    def record_vote(self, vote: Vote) -> None:
        """Keep a verified vote; the first of an operator in a slot stays (a second, different one is evidence)."""
        with self._file.transaction() as db:
            _insert_vote(db, vote)

    def get_votes(self, plan_digest: bytes) -> tuple[Vote, ...]:
        """Votes for one plan, by operator and slot."""
        rows = self._db.execute(
            "SELECT k, r, plan_digest, operator, signature FROM votes WHERE plan_digest = ? ORDER BY operator, k, r",
            (plan_digest,),
        )
        return tuple(_read_vote(row) for row in rows)

    def get_votes_of(self, k: int) -> tuple[Vote, ...]:
        """All votes of one k."""
        rows = self._db.execute(
            "SELECT k, r, plan_digest, operator, signature FROM votes WHERE k = ? ORDER BY operator, r",
            (encode_u64(k),),
        )
        return tuple(_read_vote(row) for row in rows)

    # ---- packets, signatures, certificates --------------------------------------------------------------------------

    def record_open_packets(self, packets: Sequence[PacketRecord], votes: Sequence[Vote]) -> None:
        """Record the packets of a plan together with the m votes that make them open."""
        with self._file.transaction() as db:
            for vote in votes:
                _insert_vote(db, vote)
            for p in packets:
                db.execute(
                    "INSERT INTO packets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (
                        p.vault_id, encode_u64(p.sequence), p.commitment, encode_u64(p.operator_epoch),
                        encode_u64(p.timeout), p.value, p.plan_digest, encode_u64(p.k), p.purpose, p.status, p.seen_at,
                    ),
                )  # fmt: skip

    def record_packet_status(self, vault_id: bytes, sequence: int, commitment: bytes, status: str) -> None:
        """Record what a fact or proven absence says of a packet."""
        with self._file.transaction() as db:
            db.execute(
                "UPDATE packets SET status = ? WHERE vault_id = ? AND sequence = ? AND commitment = ?",
                (status, vault_id, encode_u64(sequence), commitment),
            )

    def get_packets(self, status: str | None = None, *, limit: int = 10_000) -> tuple[PacketRecord, ...]:
        """Packets, of one status if given, by (vault, sequence); the newest ``limit`` where there are more."""
        rows = self._db.execute(
            "SELECT * FROM packets WHERE ?1 IS NULL OR status = ?1 ORDER BY seen_at DESC LIMIT ?2", (status, limit)
        ).fetchall()
        return tuple(sorted((_read_packet(row) for row in rows), key=lambda p: (p.vault_id, p.sequence, p.seen_at)))

    def get_packets_after(self, vault_id: bytes, sequence: int) -> tuple[PacketRecord, ...]:
        """Packets of a vault with a higher number, whatever became of them since, by (number, timeout, plan)."""
        rows = self._db.execute(
            "SELECT * FROM packets WHERE vault_id = ? AND sequence > ? ORDER BY sequence, timeout, plan_digest",
            (vault_id, encode_u64(sequence)),
        )
        return tuple(_read_packet(row) for row in rows)

    def get_packet(self, vault_id: bytes, sequence: int, commitment: bytes) -> PacketRecord | None:
        """One packet."""
        row = self._db.execute(
            "SELECT * FROM packets WHERE vault_id = ? AND sequence = ? AND commitment = ?",
            (vault_id, encode_u64(sequence), commitment),
        ).fetchone()
        return None if row is None else _read_packet(row)

    def record_signatures(self, signatures: Iterable[tuple[bytes, int, bytes, bytes, bytes]]) -> None:
        """Keep verified packet signatures: (vault id, sequence, commitment, operator, signature)."""
        with self._file.transaction() as db:
            for vault_id, sequence, commitment, operator, signature in signatures:
                db.execute(
                    "INSERT INTO signatures VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (vault_id, encode_u64(sequence), commitment, operator, signature),
                )

    def get_signatures(self, vault_id: bytes, sequence: int, commitment: bytes) -> dict[bytes, bytes]:
        """Signatures of one packet by operator."""
        rows = self._db.execute(
            "SELECT operator, signature FROM signatures WHERE vault_id = ? AND sequence = ? AND commitment = ?"
            " ORDER BY operator",
            (vault_id, encode_u64(sequence), commitment),
        )
        return {bytes(operator): bytes(signature) for operator, signature in rows}

    def record_certificate(self, certificate: Certificate, now: int) -> None:
        """Keep a certificate that verified."""
        with self._file.transaction() as db:
            db.execute(
                "INSERT INTO certificates VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    certificate.vault_id, encode_u64(certificate.packet.sequence),
                    compute_commitment(certificate.packet), b"".join(certificate.signatures), now,
                ),
            )  # fmt: skip
        reach("after_certificate")

    def get_certificate_signatures(self, packet: PacketRecord) -> tuple[int, tuple[bytes, ...]] | None:
        """When a packet was certified, and its m signatures."""
        row = self._db.execute(
            "SELECT seen_at, signatures FROM certificates WHERE vault_id = ? AND sequence = ? AND commitment = ?",
            (packet.vault_id, encode_u64(packet.sequence), packet.commitment),
        ).fetchone()
        if row is None:
            return None
        data = bytes(row[1])
        return row[0], tuple(data[i : i + 65] for i in range(0, len(data), 65))

    # ---- effects ----------------------------------------------------------------------------------------------------

    def record_intent(self, vault_id: bytes, sequence: int, commitment: bytes, now: int) -> None:
        """Say that this node is going to submit a packet, before it signs a transaction for it."""
        with self._file.transaction() as db:
            db.execute(
                "INSERT INTO intents VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (vault_id, encode_u64(sequence), commitment, now),
            )
        reach("after_intent")

    def is_intended(self, vault_id: bytes, sequence: int, commitment: bytes) -> bool:
        """Whether this node has said that it submits a packet."""
        row = self._db.execute(
            "SELECT 1 FROM intents WHERE vault_id = ? AND sequence = ? AND commitment = ?",
            (vault_id, encode_u64(sequence), commitment),
        ).fetchone()
        return row is not None

    def record_transaction(self, signed: SignedTx, commitment: bytes, now: int) -> int:
        """Keep a raw transaction before it is sent; returns its row."""
        with self._file.transaction() as db:
            row = db.execute(
                "INSERT INTO transactions (vault_id, sequence, commitment, chain, account, nonce, max_fee, priority_fee,"
                " tx_id, raw, prepared_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    signed.vault_id, encode_u64(signed.packet_sequence), commitment, signed.chain, signed.account,
                    encode_u64(signed.nonce), str(signed.max_fee), str(signed.priority_fee), signed.tx_id, signed.raw,
                    now,
                ),
            ).lastrowid  # fmt: skip
        reach("after_raw_tx")
        if row is None:
            raise AssertionError("SQLite gives every inserted row a number")
        return row

    def record_sent(self, row: int, now: int) -> None:
        """Say that a stored transaction was handed over; its outcome is still unknown."""
        with self._file.transaction() as db:
            db.execute("UPDATE transactions SET sent_at = coalesce(sent_at, ?) WHERE id = ?", (now, row))
        reach("after_sent_record")

    def record_outcome(self, row: int, outcome: str) -> None:
        """Record what the chain says of a transaction; information, never evidence."""
        with self._file.transaction() as db:
            db.execute("UPDATE transactions SET outcome = ? WHERE id = ?", (outcome, row))

    def get_transactions(
        self, *, chain: str | None = None, packet: PacketRecord | None = None, open_only: bool = False
    ) -> tuple[TxRecord, ...]:
        """Stored transactions, oldest first: of one chain, of one packet, or only those without a final outcome."""
        rows = self._db.execute(
            "SELECT id, chain, vault_id, sequence, account, nonce, max_fee, priority_fee, tx_id, raw, commitment,"
            " prepared_at, sent_at, outcome FROM transactions WHERE (?1 IS NULL OR chain = ?1)"
            " AND (?2 IS NULL OR (vault_id = ?2 AND sequence = ?3 AND commitment = ?4))"
            " AND (NOT ?5 OR outcome IN ('unknown', 'pending')) ORDER BY id",
            (
                chain,
                packet and packet.vault_id,
                packet and encode_u64(packet.sequence),
                packet and packet.commitment,
                open_only,
            ),
        )
        return tuple(_read_transaction(row) for row in rows)

    def get_transaction_counts(self) -> dict[tuple[str, str], int]:
        """How many transactions were stored, by (chain, outcome)."""
        rows = self._db.execute("SELECT chain, outcome, count(*) FROM transactions GROUP BY chain, outcome")
        return {(str(chain), str(outcome)): int(count) for chain, outcome, count in rows}

    @property
    def commits_s(self) -> tuple[float, ...]:
        """Seconds that the last commits took, oldest first."""
        return tuple(self._file.commits_s)

    # ---- prices -----------------------------------------------------------------------------------------------------

    def record_price(self, kind: str, source: bytes, underlying: bytes, expiry: int, stamp: int, body: bytes) -> bytes:
        """Keep a verified signed report or mark; the first of a slot stays and is returned."""
        self.record_prices([(kind, source, underlying, expiry, stamp, body)])
        row = self._db.execute(
            "SELECT body FROM prices WHERE kind = ? AND source = ? AND underlying = ? AND expiry = ? AND stamp = ?",
            (kind, source, underlying, encode_u64(expiry), encode_u64(stamp)),
        ).fetchone()
        return bytes(row[0])

    def record_prices(self, prices: Iterable[tuple[str, bytes, bytes, int, int, bytes]]) -> None:
        """Keep verified (kind, source, underlying, expiry, stamp, body) in one transaction; the first of a slot stays."""
        rows = [
            (kind, source, underlying, encode_u64(expiry), encode_u64(stamp), body)
            for kind, source, underlying, expiry, stamp, body in prices
        ]
        if rows:
            with self._file.transaction() as db:
                db.executemany("INSERT INTO prices VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def get_prices(
        self, kind: str, *, since: int = 0, upto: int | None = None, feed: tuple[bytes, bytes] | None = None
    ) -> list[bytes]:
        """Signed reports or marks with a stamp in [since, upto], of one (source, underlying) if given; oldest first."""
        rows = self._db.execute(
            "SELECT body FROM prices WHERE kind = ?1 AND stamp >= ?2 AND stamp <= ?3"
            " AND (?4 IS NULL OR (source = ?4 AND underlying = ?5)) ORDER BY stamp, source, underlying, expiry",
            (
                kind,
                encode_u64(max(0, since)),
                b"\xff" * 8 if upto is None else encode_u64(upto),
                None if feed is None else feed[0],
                None if feed is None else feed[1],
            ),
        )
        return [bytes(row[0]) for row in rows]

    # ---- incidents --------------------------------------------------------------------------------------------------

    def record_halt(self, subject: str, reason: str, detail: str, now: int) -> int:
        """Stop a subject durably; an active halt of the same subject and reason is not repeated. Returns its number."""
        for halt in self.get_halts():
            if halt.is_active and (halt.subject, halt.reason) == (subject, reason):
                return halt.id
        with self._file.transaction() as db:
            row = db.execute(
                "INSERT INTO halts (subject, reason, detail, raised_at) VALUES (?, ?, ?, ?)",
                (subject, reason, detail[:MAX_DETAIL_CHARACTERS], now),
            ).lastrowid
        if row is None:
            raise AssertionError("SQLite gives every inserted row a number")
        return row

    def record_halt_clearance(self, halt: int, person: str, note: str, now: int) -> bool:
        """One person's agreement to end a halt; True once two different people have agreed.

        Raises:
            Rejected: no such halt (``no_halt``), or nobody is named (``no_person``).
        """
        if not person.strip():
            raise Rejected("a clearance names the person who gives it", reason="no_person")
        known = {h.id for h in self.get_halts()}
        if halt not in known:
            raise Rejected("there is no such halt", got=halt, expected=sorted(known), reason="no_halt")
        with self._file.transaction() as db:
            db.execute(
                "INSERT INTO halt_clearances VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (halt, person.strip().casefold(), note[:MAX_DETAIL_CHARACTERS], now),
            )
        return not next(h for h in self.get_halts() if h.id == halt).is_active

    def get_halts(self) -> tuple[Halt, ...]:
        """All halts, oldest first, with their clearances."""
        people: dict[int, list[str]] = {}
        for halt, person in self._db.execute("SELECT halt, person FROM halt_clearances ORDER BY cleared_at, person"):
            people.setdefault(halt, []).append(person)
        rows = self._db.execute("SELECT id, subject, reason, detail, raised_at FROM halts ORDER BY id")
        return tuple(Halt(i, s, r, d, at, tuple(people.get(i, ()))) for i, s, r, d, at in rows)

    def is_halted(self, subject: str) -> bool:
        """Whether a subject, or the whole node, is stopped."""
        return any(h.is_active and h.subject in (subject, "node") for h in self.get_halts())

    def record_blames(self, blames: Iterable[Blame], now: int) -> None:
        """Count what named sources did wrong; repeated misdeeds grow a number, not the store."""
        blames = list(blames)
        if not blames:
            return
        with self._file.transaction() as db:
            for blame in blames:
                db.execute(
                    "INSERT INTO blames VALUES (?, ?, ?, ?, 1, ?, ?) ON CONFLICT (chain, source, reason)"
                    " DO UPDATE SET count = count + 1, last_at = excluded.last_at, detail = excluded.detail",
                    (blame.chain, blame.source, blame.reason, blame.detail[:MAX_DETAIL_CHARACTERS], now, now),
                )

    def get_blames(self) -> tuple[tuple[Blame, int, int], ...]:
        """Each misdeed with how often and when last, the latest first."""
        rows = self._db.execute(
            "SELECT chain, source, reason, detail, count, last_at FROM blames ORDER BY last_at DESC, chain, source, reason"
        )
        return tuple((Blame(*row[:4]), row[4], row[5]) for row in rows)

    def record_evidence(self, digest: bytes, operator: bytes, kind: str, body: bytes, now: int) -> bool:
        """Keep a portable proof of equivocation; True if it is new."""
        with self._file.transaction() as db:
            return (
                db.execute(
                    "INSERT INTO evidence VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (digest, operator, kind, body, now),
                ).rowcount
                > 0
            )

    def count_evidence(self, operator: bytes) -> int:
        """How many proofs of equivocation by an operator are kept."""
        row = self._db.execute("SELECT count(*) FROM evidence WHERE operator = ?", (operator,)).fetchone()
        return int(row[0])

    def get_evidence(self) -> tuple[tuple[bytes, str, bytes], ...]:
        """(operator, kind, document) of every proof of equivocation."""
        rows = self._db.execute("SELECT operator, kind, body FROM evidence ORDER BY seen_at, digest")
        return tuple((bytes(o), k, bytes(b)) for o, k, b in rows)

    # ---- integrity --------------------------------------------------------------------------------------------------

    def verify_all(self) -> dict[str, int]:
        """Check the whole file: SQLite's own check and every hash chain and digest. Returns counts per kind.

        Raises:
            Rejected: reason ``corrupt`` or ``chain_broken``, naming the place.
        """
        found = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise Rejected("the store is damaged", got=found, expected="ok", reason="corrupt")
        return self._verify_chains(None)

    def _verify_chains(self, limit: int | None) -> dict[str, int]:
        counts = {"headers": self._verify_headers(), "heads": self._verify_heads(), "facts": 0}
        for (vault_id,) in self._db.execute("SELECT DISTINCT vault_id FROM facts").fetchall():
            counts["facts"] += self._verify_facts(bytes(vault_id), limit)
        return counts

    def _verify_facts(self, vault_id: bytes, limit: int | None) -> int:
        total = _get_tip(self._db, b"facts/" + vault_id)
        if self.get_cursor(vault_id).sequence != total[0]:
            raise _broken(f"facts of vault {vault_id.hex()}: the newest are missing")
        after = 0 if limit is None else max(0, total[0] - limit)
        previous = self._get_chain_hash(vault_id, after)
        count = 0
        rows = self._db.execute(
            "SELECT sequence, head, chain_hash, record FROM facts WHERE vault_id = ? AND sequence > ? ORDER BY sequence",
            (vault_id, encode_u64(after)),
        )
        for sequence, head, chain_hash, record in rows:
            count += 1
            i = decode_u64(sequence)
            expected = compute_chain_hash(b"facts/" + vault_id, i, previous, head, record)
            if i != after + count or expected != chain_hash:
                raise _broken(f"fact {after + count} of vault {vault_id.hex()}")
            previous = expected
        if previous != total[1]:
            raise _broken(f"facts of vault {vault_id.hex()}: the end of the chain")
        return count

    def _verify_headers(self) -> int:
        count = 0
        for (chain,) in self._db.execute("SELECT DISTINCT chain FROM headers").fetchall():
            rows = self._db.execute(
                "SELECT i, height, header_hash, time, kind, claim_digest, trusted_digest, chain_hash FROM headers"
                " WHERE chain = ? ORDER BY i",
                (chain,),
            )
            stream = b"headers/" + chain.encode()
            last = _verify_stream(stream, ((r[0], (r[1], r[2], r[3], r[4].encode(), r[5], r[6]), r[7]) for r in rows))
            if last != _get_tip(self._db, stream):
                raise _broken(f"headers of {chain}: the newest are missing")
            count += last[0]
        return count

    def _verify_heads(self) -> int:
        count = 0
        for (vault_id,) in self._db.execute("SELECT DISTINCT vault_id FROM heads").fetchall():
            rows = self._db.execute(
                "SELECT i, height, header_hash, time, sequence, head, proof_digest, chain_hash FROM heads"
                " WHERE vault_id = ? ORDER BY i",
                (vault_id,),
            )
            stream = b"heads/" + bytes(vault_id)
            last = _verify_stream(stream, ((r[0], tuple(r[1:7]), r[7]) for r in rows))
            if last != _get_tip(self._db, stream):
                raise _broken(f"heads of vault {bytes(vault_id).hex()}: the newest are missing")
            count += last[0]
        return count

    def _get_chain_hash(self, vault_id: bytes, sequence: int) -> bytes:
        if sequence == 0:
            return compute_chain_hash(b"facts/" + vault_id, 0, b"")
        row = self._db.execute(
            "SELECT chain_hash FROM facts WHERE vault_id = ? AND sequence = ?", (vault_id, encode_u64(sequence))
        ).fetchone()
        if row is None:
            raise _broken(f"fact {sequence} of vault {vault_id.hex()}: it is missing")
        return bytes(row[0])


# ---- rows ---------------------------------------------------------------------------------------------------------------

_SELECT_HEAD = "SELECT height, header_hash, time, sequence, head, proof, proof_digest FROM heads"


def _put_setting(db: sqlite3.Connection, key: str, value: bytes) -> None:
    db.execute(
        "INSERT INTO settings VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
    )


def _get_tip(db: sqlite3.Connection, stream: bytes) -> tuple[int, bytes]:
    """Count and last hash of a stream, kept apart from its rows so that a missing end is noticed."""
    row = db.execute("SELECT value FROM settings WHERE key = ?", ("tip:" + stream.hex(),)).fetchone()
    if row is None:
        return 0, compute_chain_hash(stream, 0, b"")
    return decode_u64(bytes(row[0])[:8]), bytes(row[0])[8:]


def _put_tip(db: sqlite3.Connection, stream: bytes, i: int, chain_hash: bytes) -> None:
    _put_setting(db, "tip:" + stream.hex(), encode_u64(i) + chain_hash)


def _verify_stream(stream: bytes, rows: Iterable[tuple[bytes, tuple[bytes, ...], bytes]]) -> tuple[int, bytes]:
    count, previous = 0, compute_chain_hash(stream, 0, b"")
    for i, parts, chain_hash in rows:
        count += 1
        expected = compute_chain_hash(stream, count, previous, *parts)
        if decode_u64(i) != count or expected != chain_hash:
            raise _broken(f"row {count} of {stream[:40]!r}")
        previous = expected
    return count, previous


def _broken(where: str) -> Rejected:
    return Rejected(
        f"the store does not hold together at {where}: somebody or something changed it. Sign nothing with it; keep it for"
        " analysis and rebuild from the chains",
        reason="chain_broken",
    )


def _verify_digest(what: str, data: bytes, digest: bytes) -> bytes:
    if hashlib.sha256(data).digest() != digest:
        raise _broken(what)
    return data


def _digest_state(vault_id: bytes, sequence: int, state: bytes) -> bytes:
    return compute_chain_hash(b"snapshot/" + vault_id, sequence, b"", state)


def _insert_headers(db: sqlite3.Connection, chain: str, headers: Sequence[HeaderRecord]) -> None:
    stream = b"headers/" + chain.encode()
    i, previous = _get_tip(db, stream)
    for header in headers:
        i += 1
        claim_digest = hashlib.sha256(header.claim).digest()
        trusted_digest = hashlib.sha256(header.trusted).digest()
        height, time = encode_u64(header.point.height), encode_u64(header.point.time)
        previous = compute_chain_hash(
            stream, i, previous, height, header.point.header_hash, time, header.kind.encode(), claim_digest,
            trusted_digest,
        )  # fmt: skip
        db.execute(
            "INSERT INTO headers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                chain, encode_u64(i), height, header.point.header_hash, time, header.kind, claim_digest, trusted_digest,
                previous, header.claim, header.trusted,
            ),
        )  # fmt: skip
    if headers:
        _put_tip(db, stream, i, previous)
        db.execute(
            "UPDATE headers SET trusted = NULL WHERE chain = ? AND i <= ? AND trusted IS NOT NULL",
            (chain, encode_u64(max(0, i - KEPT_TRUSTED))),
        )


def _insert_head(db: sqlite3.Connection, head: HeadRecord) -> None:
    stream = b"heads/" + head.vault_id
    i, previous = _get_tip(db, stream)
    height, time, sequence = encode_u64(head.point.height), encode_u64(head.point.time), encode_u64(head.sequence)
    proof_digest = hashlib.sha256(head.proof).digest()
    chain_hash = compute_chain_hash(
        stream, i + 1, previous, height, head.point.header_hash, time, sequence, head.head, proof_digest
    )
    db.execute(
        "INSERT INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            head.vault_id, encode_u64(i + 1), height, head.point.header_hash, time, sequence, head.head, proof_digest,
            chain_hash, head.proof,
        ),
    )  # fmt: skip
    _put_tip(db, stream, i + 1, chain_hash)


def _read_trusted(row: tuple[bytes, bytes, bytes, bytes, bytes]) -> tuple[Point, bytes]:
    height, header_hash, time, trusted, digest = row
    return (
        Point(decode_u64(height), bytes(header_hash), decode_u64(time)),
        _verify_digest("a light-client state", bytes(trusted), bytes(digest)),
    )


def _read_head(vault_id: bytes, row: tuple[bytes, ...]) -> HeadRecord:
    height, header_hash, time, sequence, head, proof, digest = row
    return HeadRecord(
        vault_id,
        Point(decode_u64(height), bytes(header_hash), decode_u64(time)),
        decode_u64(sequence),
        bytes(head),
        _verify_digest("a head proof", bytes(proof), bytes(digest)),
    )


def _insert_vote(db: sqlite3.Connection, vote: Vote) -> None:
    db.execute(
        "INSERT INTO votes VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (encode_u64(vote.k), encode_u64(vote.r), vote.operator, vote.plan_digest, vote.signature),
    )


def _read_vote(row: tuple[bytes, bytes, bytes, bytes, bytes]) -> Vote:
    k, r, plan_digest, operator, signature = row
    return Vote(decode_u64(k), decode_u64(r), bytes(plan_digest), bytes(operator), bytes(signature))


def _read_packet(row: sqlite3.Row | tuple[bytes, ...]) -> PacketRecord:
    vault_id, sequence, commitment, epoch, timeout, value, plan_digest, k, purpose, status, seen_at = row
    return PacketRecord(
        bytes(vault_id), decode_u64(sequence), bytes(commitment), decode_u64(epoch), decode_u64(timeout), bytes(value),
        bytes(plan_digest), decode_u64(k), str(purpose), str(status), int(seen_at),
    )  # fmt: skip


def _read_transaction(row: sqlite3.Row | tuple[bytes, ...]) -> TxRecord:
    row_id, chain, vault_id, sequence, account, nonce, fee, tip, tx_id, raw, commitment, prepared, sent, outcome = row
    signed = SignedTx(
        str(chain), bytes(vault_id), decode_u64(sequence), str(account), decode_u64(nonce), int(fee), int(tip),
        str(tx_id), bytes(raw),
    )  # fmt: skip
    return TxRecord(
        int(row_id), signed, bytes(commitment), int(prepared), None if sent is None else int(sent), str(outcome)
    )
