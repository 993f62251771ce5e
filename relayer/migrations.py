"""The schema of a node's store and of a signer's journal, as named, ordered, append-only migrations.

Rules of the schema: whole numbers of the protocol (u64) are 8-byte big-endian blobs, so that they keep every bit and sort
right (SQLite's INTEGER is signed); amounts live inside encoded records only; an anchor is never zero (incident B1); nothing
is ever updated that is evidence. A migration that was released is never edited: write the next one.
"""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

store_migrations = Migrations("relayer_store")
journal_migrations = Migrations("relayer_journal")

_U64 = "BLOB NOT NULL CHECK(length({0}) = 8)"
_ID = "BLOB NOT NULL CHECK(length({0}) = 32 AND {0} <> zeroblob(32))"


def _u64(name: str) -> str:
    return f"{name} {_U64.format(name)}"


def _id(name: str) -> str:
    return f"{name} {_ID.format(name)}"


def _run(db: Database, *statements: str) -> None:
    for statement in statements:
        db.execute(statement)


@store_migrations(name="0001_chain_records")
def _chain_records(db: Database) -> None:
    _run(
        db,
        # One row per key: committee id, boot counter, tips of the hash chains, agreed market time and the like.
        "CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT",
        # Verified light-client states, oldest first. ``trusted`` is NULL once it is too old to verify anything from.
        f"""CREATE TABLE headers (
            chain TEXT NOT NULL, {_u64("i")}, {_u64("height")}, header_hash BLOB NOT NULL, {_u64("time")},
            kind TEXT NOT NULL CHECK(kind IN ('bootstrap', 'update')), {_id("claim_digest")}, {_id("trusted_digest")},
            {_id("chain_hash")}, claim BLOB NOT NULL, trusted BLOB, UNIQUE (chain, i)) STRICT""",
        "CREATE INDEX headers_by_height ON headers (chain, height)",
        # Proven outbox positions with their proofs.
        f"""CREATE TABLE heads (
            {_id("vault_id")}, {_u64("i")}, {_u64("height")}, header_hash BLOB NOT NULL, {_u64("time")},
            {_u64("sequence")}, {_id("head")}, {_id("proof_digest")}, {_id("chain_hash")}, proof BLOB NOT NULL,
            UNIQUE (vault_id, i)) STRICT""",
        "CREATE INDEX heads_by_height ON heads (vault_id, height)",
        f"""CREATE TABLE facts (
            {_id("vault_id")}, {_u64("sequence")}, {_id("head")}, {_id("chain_hash")}, record BLOB NOT NULL,
            UNIQUE (vault_id, sequence)) STRICT""",
        # Folded vault states every so many facts, so that a restart folds a short tail only.
        f"""CREATE TABLE snapshots (
            {_id("vault_id")}, {_u64("sequence")}, {_id("digest")}, state BLOB NOT NULL,
            UNIQUE (vault_id, sequence)) STRICT""",
    )


@store_migrations(name="0002_committee_records")
def _committee_records(db: Database) -> None:
    _run(
        db,
        # Content-addressed documents: cuts, proposals, plans, market snapshots, parameters (digest of canonical JSON).
        f"""CREATE TABLE documents (
            {_id("digest")}, kind TEXT NOT NULL, {_u64("k")}, {_u64("r")}, operator BLOB NOT NULL, body BLOB NOT NULL,
            seen_at INTEGER NOT NULL, PRIMARY KEY (digest)) STRICT""",
        "CREATE INDEX documents_by_slot ON documents (kind, k, r)",
        f"""CREATE TABLE votes (
            {_u64("k")}, {_u64("r")}, operator BLOB NOT NULL CHECK(length(operator) = 20), {_id("plan_digest")},
            signature BLOB NOT NULL, PRIMARY KEY (k, r, operator)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX votes_by_plan ON votes (plan_digest)",
        # Packets of a plan with m votes. Open until a fact or proven absence says what became of it.
        f"""CREATE TABLE packets (
            {_id("vault_id")}, {_u64("sequence")}, {_id("commitment")}, {_u64("operator_epoch")}, {_u64("timeout")},
            value BLOB NOT NULL, {_id("plan_digest")}, {_u64("k")}, purpose TEXT NOT NULL,
            status TEXT NOT NULL CHECK(status IN ('open', 'done', 'refused', 'absent')), seen_at INTEGER NOT NULL,
            PRIMARY KEY (vault_id, sequence, commitment)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX packets_by_status ON packets (status)",
        f"""CREATE TABLE signatures (
            {_id("vault_id")}, {_u64("sequence")}, {_id("commitment")}, operator BLOB NOT NULL, signature BLOB NOT NULL,
            PRIMARY KEY (vault_id, sequence, commitment, operator)) STRICT, WITHOUT ROWID""",
        f"""CREATE TABLE certificates (
            {_id("vault_id")}, {_u64("sequence")}, {_id("commitment")}, signatures BLOB NOT NULL,
            seen_at INTEGER NOT NULL, PRIMARY KEY (vault_id, sequence, commitment)) STRICT, WITHOUT ROWID""",
    )


@store_migrations(name="0003_effects")
def _effects(db: Database) -> None:
    _run(
        db,
        # An intent is committed before anything is signed, a raw transaction before it is sent (protocol.md 9).
        f"""CREATE TABLE intents (
            {_id("vault_id")}, {_u64("sequence")}, {_id("commitment")}, created_at INTEGER NOT NULL,
            PRIMARY KEY (vault_id, sequence, commitment)) STRICT, WITHOUT ROWID""",
        f"""CREATE TABLE transactions (
            id INTEGER PRIMARY KEY, {_id("vault_id")}, {_u64("sequence")}, {_id("commitment")}, chain TEXT NOT NULL,
            account TEXT NOT NULL, {_u64("nonce")}, max_fee TEXT NOT NULL, priority_fee TEXT NOT NULL,
            tx_id TEXT NOT NULL, raw BLOB NOT NULL, prepared_at INTEGER NOT NULL, sent_at INTEGER,
            outcome TEXT NOT NULL DEFAULT 'unknown',
            FOREIGN KEY (vault_id, sequence, commitment) REFERENCES intents (vault_id, sequence, commitment)) STRICT""",
        "CREATE INDEX transactions_by_packet ON transactions (vault_id, sequence, commitment)",
    )


@store_migrations(name="0004_prices_and_incidents")
def _prices_and_incidents(db: Database) -> None:
    _run(
        db,
        f"""CREATE TABLE prices (
            kind TEXT NOT NULL CHECK(kind IN ('report', 'mark')), source BLOB NOT NULL, underlying BLOB NOT NULL,
            {_u64("expiry")}, {_u64("stamp")}, body BLOB NOT NULL,
            PRIMARY KEY (kind, source, underlying, expiry, stamp)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX prices_by_stamp ON prices (kind, stamp)",
        # A halt is durable; a restart never clears it, two people do (incident G8).
        """CREATE TABLE halts (
            id INTEGER PRIMARY KEY, subject TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
            raised_at INTEGER NOT NULL) STRICT""",
        """CREATE TABLE halt_clearances (
            halt INTEGER NOT NULL REFERENCES halts (id), person TEXT NOT NULL CHECK(person <> ''), note TEXT NOT NULL,
            cleared_at INTEGER NOT NULL, PRIMARY KEY (halt, person)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE blames (
            chain TEXT NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
            count INTEGER NOT NULL, first_at INTEGER NOT NULL, last_at INTEGER NOT NULL,
            PRIMARY KEY (chain, source, reason)) STRICT, WITHOUT ROWID""",
        f"""CREATE TABLE evidence (
            {_id("digest")}, operator BLOB NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL, seen_at INTEGER NOT NULL,
            PRIMARY KEY (digest)) STRICT""",
    )


@store_migrations(name="0005_snapshots_of_version_2")
def _forget_snapshots(db: Database) -> None:
    # States say since when a vault is paused. They are folded from the facts again.
    _run(db, "DELETE FROM snapshots")


@journal_migrations(name="0001_journal")
def _journal(db: Database) -> None:
    _run(
        db,
        f"""CREATE TABLE entries (
            i INTEGER PRIMARY KEY, kind TEXT NOT NULL, slot BLOB NOT NULL, value BLOB NOT NULL, {_u64("k")},
            {_u64("until")}, {_id("chain_hash")}) STRICT""",
        "CREATE INDEX entries_by_slot ON entries (kind, slot)",
        "CREATE INDEX entries_by_k ON entries (kind, k)",
        # Append-only by rule and by trigger: a bug of ours must not be able to rewrite what was signed.
        "CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END",
        "CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END",
    )
