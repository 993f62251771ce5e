"""Keys, the signer and its journal: the only door to a signature of this operator (protocol.md 8.4, incidents.md 4).

The signer speaks typed intents: a vote, the packets of a plan with its m votes, an envelope, a parameter set. There is no way
to have a digest signed and no public key goes in (incident D4). Each statement is in the journal before its signature
leaves; the journal refuses a second, different one for the same slot. The journal is its own append-only file: restoring an
old store can't make it forget, and a journal that was lost or restored itself signs nothing until every packet it might
have signed is dead (quarantine).

The signer runs in the node's process for now; a process and user of its own fits behind the same methods.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chains.solana.attestations import (
    PacketAttestation,
    StateAttestation,
    Tag,
    encode_packet_attestation,
    encode_state_attestation,
    sign_attestation,
)
from messages.bodies import WIDEST_LIMITS, Execute, decode_inbox_body
from messages.digests import (
    compute_mark_digest,
    compute_observation_digest,
    compute_packet_digest,
    compute_pause_digest,
    compute_report_digest,
    compute_vote_digest,
    get_address,
    sign_digest,
)
from messages.documents import (
    Mark,
    Parameters,
    Plan,
    Proposal,
    Report,
    Vote,
    compute_digest,
    encode_document,
)
from messages.errors import Conflict, Rejected
from messages.packet import compute_commitment
from messages.wire import Envelope, compute_envelope_digest
from relayer.database import DatabaseFile, compute_chain_hash, decode_u64, encode_u64
from relayer.killpoints import reach
from relayer.migrations import journal_migrations
from relayer.rules.plan import finalize_packet
from relayer.rules.quorum import Committee, compute_parameters_statement, verify_quorum
from relayer.rules.statements import PacketSignature

MIN_SCRYPT_N = 2**18
"""Cost of a key file's password (incidents.md 4); demo and test keys, which guard nothing, say so when they are made."""

WEAK_SCRYPT_N = 2**4
MAX_KEY_FILE_BYTES = 16_384
PROPOSAL_TYPE = "proposal"
_STREAM = b"journal"


# ---- key files ----------------------------------------------------------------------------------------------------------


class Secret:
    """Bytes that show up in no repr, no format, no log and no pickle."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves; call it only where they are used at once."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret stays in its process")


def create_key_file(path: Path, private_key: Secret, password: Secret, *, is_throwaway: bool = False) -> bytes:
    """Write a keystore v3 (scrypt) with mode 0600 and return its address (20 bytes). Never overwrites.

    ``is_throwaway``: a demo or test key: cheap scrypt, refused by `load_key_file` unless it is told so too.
    """
    from eth_keyfile.keyfile import create_keyfile_json

    body = create_keyfile_json(
        private_key.reveal(),
        password.reveal(),
        version=3,
        kdf="scrypt",
        iterations=WEAK_SCRYPT_N if is_throwaway else MIN_SCRYPT_N,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Rejected(f"there is a key file at {path} already: nothing was written", reason="key_file") from None
    with os.fdopen(handle, "w") as file:
        json.dump(body, file)
        file.flush()
        os.fsync(file.fileno())
    return get_address(private_key.reveal())


def generate_private_key() -> Secret:
    """A fresh key from the operating system; a broken generator is noticed, not used (incident B6)."""
    for _ in range(8):
        value = os.urandom(32)
        if len(set(value)) > 8:
            return Secret(value)
    raise RuntimeError("the system's random generator repeats itself: make no keys on this machine")


def load_key_file(path: Path, password: Secret, *, is_throwaway: bool = False) -> Secret:
    """Open a keystore v3.

    Raises:
        Rejected: ``key_file`` (missing, too large, not a keystore v3 with scrypt), ``file_mode`` (others may read it),
            ``weak_key_file`` (cheap scrypt), ``bad_password``. The text holds nothing of the key or the password.
    """
    from eth_keyfile.keyfile import decode_keyfile_json

    if not path.is_file():
        raise Rejected(f"there is no key file at {path}: relayer keys new or import makes one", reason="key_file")
    if path.stat().st_mode & 0o077:
        raise Rejected(
            f"the key file {path} can be read by others: chmod 600 it",
            got=oct(path.stat().st_mode & 0o777),
            expected="0o600",
            reason="file_mode",
        )
    if path.stat().st_size > MAX_KEY_FILE_BYTES:
        raise Rejected(f"{path} is too large for a key file", got=path.stat().st_size, reason="key_file")
    try:
        body = json.loads(path.read_text())
        version, kdf, cost = body["version"], body["crypto"]["kdf"], body["crypto"]["kdfparams"].get("n", 0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Rejected(f"{path} is not a keystore v3", reason="key_file") from None
    if version != 3 or kdf != "scrypt" or not isinstance(cost, int):
        raise Rejected(f"{path} must be a keystore v3 with scrypt", got=f"v{version} {kdf}", reason="key_file")
    if cost < MIN_SCRYPT_N and not is_throwaway:
        raise Rejected(
            f"the password of {path} is guarded too cheaply: import the key again",
            got=f"scrypt N {cost}",
            expected=f">= {MIN_SCRYPT_N}",
            reason="weak_key_file",
        )
    try:
        return Secret(decode_keyfile_json(body, password.reveal()))
    except (ValueError, KeyError, TypeError):
        raise Rejected(f"the password does not open {path}", reason="bad_password") from None


# ---- journal ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statement:
    """One thing a key may say once: kind and slot, what is said, its k (0: none), and for packets the timeout."""

    kind: str
    slot: bytes
    value: bytes
    k: int = 0
    until: int = 0


SAID_IN_QUARANTINE = frozenset({"observation"})
"""Statements that no number of later ones makes dead, so that waiting does not help: see `Signer.sign_observation`."""


class Journal:
    """Append-only record of everything this operator's key said; see the module.

    Args:
        path: its file.
        now: unix seconds; only the boot number and a quarantine read it.
        quarantine_s: longest time a packet can stay valid (the largest family constant and some margin).

    A missing file is made, in quarantine: only `create_first` may say that this key never signed before.

    Raises:
        Rejected: as `DatabaseFile`, and ``chain_broken``.
    """

    def __init__(self, path: Path, now: int, quarantine_s: int) -> None:
        self._quarantine_s = quarantine_s
        self._file = DatabaseFile(path, journal_migrations, "the signer's journal")
        self._db = self._file.connection
        self.path = path
        try:
            self._count, self._last_hash = self._verify()
        except BaseException:
            self._file.close()
            raise
        if self._count == 0:
            self.record_quarantine(now, "the journal is new or was lost")
        boot_id = max(self._get_number("boot") + 1, now)
        self._append("boot", b"", encode_u64(boot_id), 0, 0)
        self.boot_id = boot_id

    @classmethod
    def create_first(cls, path: Path, now: int) -> None:
        """Make the journal of a key that has never signed anything. Only a human (or a demo) can know that.

        Raises:
            Rejected: there is a journal already; reason ``journal_exists``.
        """
        if path.exists():
            raise Rejected(
                f"there is a journal at {path} already: it is the memory of this key", reason="journal_exists"
            )
        file = DatabaseFile(path, journal_migrations, "the signer's journal")
        chain_hash = compute_chain_hash(_STREAM, 1, b"", b"first", b"", encode_u64(now), encode_u64(0), encode_u64(0))
        with file.transaction() as db:
            db.execute(
                "INSERT INTO entries VALUES (1, 'first', x'', ?, ?, ?, ?)",
                (encode_u64(now), encode_u64(0), encode_u64(0), chain_hash),
            )
        file.close()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()

    @property
    def tip(self) -> bytes:
        """Count and last hash: what a node keeps elsewhere to notice that the journal went back in time."""
        return encode_u64(self._count) + self._last_hash

    def is_known_tip(self, tip: bytes) -> bool:
        """Whether the journal holds the entry that was its last one when ``tip`` was taken."""
        count = decode_u64(tip[:8])
        if count == 0:
            return True
        row = self._db.execute("SELECT chain_hash FROM entries WHERE i = ?", (count,)).fetchone()
        return row is not None and bytes(row[0]) == tip[8:]

    @property
    def highest_k(self) -> int:
        """The highest k this key voted in or signed packets of (or must stay above after a quarantine)."""
        row = self._db.execute("SELECT max(k) FROM entries WHERE kind IN ('vote', 'plan', 'release')").fetchone()
        return 0 if row[0] is None else decode_u64(bytes(row[0]))

    def get_value(self, kind: str, slot: bytes) -> bytes | None:
        """The newest value this key said in a slot."""
        row = self._db.execute(
            "SELECT value FROM entries WHERE kind = ? AND slot = ? ORDER BY i DESC LIMIT 1", (kind, slot)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def get_highest_number(self, kind: str, prefix: bytes) -> int | None:
        """The highest u64 under which this key said something of a kind, where a slot is ``prefix`` and a u64; None: nothing yet."""
        row = self._db.execute(
            "SELECT max(slot) FROM entries WHERE kind = ? AND slot BETWEEN ? AND ?",
            (kind, prefix + bytes(8), prefix + b"\xff" * 8),
        ).fetchone()
        return None if row[0] is None else decode_u64(bytes(row[0])[len(prefix) :])

    def has_said(self, kind: str, slot: bytes, value: bytes) -> bool:
        """Whether this key ever said exactly this in a slot, whatever it said there later."""
        row = self._db.execute(
            "SELECT 1 FROM entries WHERE kind = ? AND slot = ? AND value = ? LIMIT 1", (kind, slot, value)
        ).fetchone()
        return row is not None

    # ---- quarantine

    @property
    def released_k(self) -> int:
        """What lies below this k was said before a quarantine that is over: it is dead, and known to be unknown here."""
        row = self._db.execute("SELECT max(k) FROM entries WHERE kind = 'release'").fetchone()
        return 0 if row[0] is None else decode_u64(bytes(row[0]))

    @property
    def quarantine_until(self) -> int | None:
        """Unix seconds that every vault's proven time must pass before this key signs again; None: it may sign."""
        row = self._db.execute(
            "SELECT kind, until FROM entries WHERE kind IN ('quarantine', 'release') ORDER BY i DESC LIMIT 1"
        ).fetchone()
        return decode_u64(bytes(row[1])) if row is not None and row[0] == "quarantine" else None

    def record_quarantine(self, now: int, why: str) -> None:
        """Stop signing: something this key said is not in this journal."""
        if self.quarantine_until is None:
            self._append("quarantine", b"", why.encode()[:500], 0, now + self._quarantine_s)

    def record_release(self, proven_times: Mapping[bytes, int], highest_seen_k: int) -> bool:
        """End a quarantine once every vault's proven time has passed it; True if the key may sign now.

        Args:
            proven_times: per vault id the time of its newest proven state; all vaults of the committee.
            highest_seen_k: highest k of any statement seen meanwhile; the key stays above it.
        """
        until = self.quarantine_until
        if until is None:
            return True
        if not proven_times or min(proven_times.values()) <= until:
            return False
        self._append("release", b"", b"", highest_seen_k + 1, 0)
        return True

    # ---- statements

    def record_statements(self, statements: Sequence[Statement], proven_times: Mapping[bytes, int]) -> None:
        """Write what is about to be signed, all or nothing; repeating the same is fine and writes nothing.

        Args:
            statements: what is said.
            proven_times: per vault id the time of its newest proven state: when an earlier packet is dead.

        Raises:
            Conflict: this key said something else there; reason ``signed_otherwise``. No signature must be made.
            Rejected: the key is in quarantine; reason ``quarantine``.
        """
        said: dict[tuple[str, bytes], bytes] = {}
        for statement in statements:
            self._verify_free(statement, proven_times)
            # A batch must not contradict itself either: the rows of before know nothing of it.
            if said.setdefault((statement.kind, statement.slot), statement.value) != statement.value:
                raise Conflict(
                    f"two values for one {statement.kind} at once",
                    got=statement.value, expected=said[statement.kind, statement.slot], reason="signed_otherwise",
                )  # fmt: skip
        new = [s for s in statements if self.get_value(s.kind, s.slot) != s.value]
        if new:
            self._append_all([(s.kind, s.slot, s.value, s.k, s.until) for s in new])

    def _verify_free(self, statement: Statement, proven_times: Mapping[bytes, int]) -> None:
        if self.quarantine_until is not None and statement.kind not in SAID_IN_QUARANTINE:
            raise Rejected(
                "this key signs nothing until its old packets are dead (its journal was lost, restored or is new)",
                expected=f"every vault's proven time > {self.quarantine_until}",
                reason="quarantine",
            )
        row = self._db.execute(
            "SELECT value, until FROM entries WHERE kind = ? AND slot = ? ORDER BY i DESC LIMIT 1",
            (statement.kind, statement.slot),
        ).fetchone()
        if row is None or bytes(row[0]) == statement.value:
            return
        if statement.kind == "packet" and proven_times.get(statement.slot[:32], 0) >= decode_u64(bytes(row[1])):
            return
        raise Conflict(
            f"this key has signed another {statement.kind} there",
            got=statement.value,
            expected=bytes(row[0]),
            reason="signed_otherwise",
        )

    def get_entries(self) -> list[tuple[str, bytes, bytes, int]]:
        """(kind, slot, value, k) of every entry in order: what a successor of this node imports."""
        rows = self._db.execute("SELECT kind, slot, value, k FROM entries ORDER BY i")
        return [(str(kind), bytes(slot), bytes(value), decode_u64(bytes(k))) for kind, slot, value, k in rows]

    # ---- rows

    def _get_number(self, kind: str) -> int:
        value = self.get_value(kind, b"")
        return 0 if value is None else decode_u64(value)

    def _append(self, kind: str, slot: bytes, value: bytes, k: int, until: int) -> None:
        self._append_all([(kind, slot, value, k, until)])

    def _append_all(self, entries: Sequence[tuple[str, bytes, bytes, int, int]]) -> None:
        i, last = self._count, self._last_hash
        with self._file.transaction() as db:
            for kind, slot, value, k, until in entries:
                i += 1
                last = compute_chain_hash(
                    _STREAM, i, last, kind.encode(), slot, value, encode_u64(k), encode_u64(until)
                )
                db.execute(
                    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (i, kind, slot, value, encode_u64(k), encode_u64(until), last),
                )
        self._count, self._last_hash = i, last

    def _verify(self) -> tuple[int, bytes]:
        count, last = 0, b""
        for i, kind, slot, value, k, until, chain_hash in self._db.execute("SELECT * FROM entries ORDER BY i"):
            count += 1
            expected = compute_chain_hash(_STREAM, count, last, kind.encode(), slot, value, k, until)
            if i != count or expected != chain_hash:
                raise Rejected(
                    "the signer's journal does not hold together: somebody changed it. Sign nothing with this key",
                    got=i,
                    expected=count,
                    reason="chain_broken",
                )
            last = expected
        return count, last


# ---- signer -------------------------------------------------------------------------------------------------------------


class Signer:
    """The operator's key behind its journal.

    Args:
        private_key: opened key file.
        journal: of this key.
        committee_id: salt of everything operators sign off chain.
    """

    def __init__(self, private_key: Secret, journal: Journal, committee_id: bytes) -> None:
        self._key = private_key
        self._committee_id = committee_id
        self._sequence = 0
        self.journal = journal
        self.operator = bytes(get_address(private_key.reveal()))

    def __repr__(self) -> str:
        return f"Signer(0x{self.operator.hex()})"

    def sign_vote(self, k: int, r: int, plan_digest: bytes) -> Vote:
        """Vote for a plan, once per (k, r) and never below a k signed before (protocol.md 8.1, 8.2).

        Raises:
            Conflict: voted otherwise in this slot. Rejected: ``quarantine``, ``old_k``.
        """
        slot = encode_u64(k) + encode_u64(r)
        if k < self.journal.highest_k:
            raise Rejected("this key has signed in a higher k", got=k, expected=self.journal.highest_k, reason="old_k")
        self.journal.record_statements([Statement("vote", slot, plan_digest, k)], {})
        reach("after_vote_journal")
        digest = compute_vote_digest(self._committee_id, k, r, plan_digest)
        return Vote(k, r, plan_digest, self.operator, self._sign(digest))

    def sign_packets(
        self,
        plan: Plan,
        votes: tuple[Vote, ...],
        committee: Committee,
        proven_times: Mapping[bytes, int],
        price_slots: Mapping[bytes, bytes],
    ) -> tuple[PacketSignature, ...]:
        """Sign all packets of a plan that has m votes, unless another plan of its k was signed (protocol.md 8.2, 8.4).

        All statements are checked before the first is written, so a plan is signed whole or not at all.

        Args:
            plan: the document itself; its digest is computed here.
            votes: m of them, checked here.
            committee: in force.
            proven_times: per vault id the time of its newest proven state.
            price_slots: per series what all series that settle by the same price share (protocol.md 7.1); a series that is
                not named shares with none.

        Raises:
            Conflict: another plan of k, another packet under a number, or another price was signed.
            Rejected: ``quarantine``, ``old_k``, or the votes are no quorum.
        """
        digest = compute_digest(plan)
        verify_quorum(votes, plan.k, digest, committee)
        if plan.k < self.journal.highest_k and self.journal.get_value("plan", encode_u64(plan.k)) != digest:
            raise Rejected(
                "this key has signed in a higher k", got=plan.k, expected=self.journal.highest_k, reason="old_k"
            )
        statements = [Statement("plan", encode_u64(plan.k), digest, plan.k)]
        digests: list[tuple[bytes, int, bytes]] = []
        for planned in plan.packets:
            packet = finalize_packet(planned, digest)
            signed = compute_packet_digest(
                planned.vault_id, planned.operator_epoch, planned.sequence, compute_commitment(packet)
            )
            body = decode_inbox_body(packet.payloads[0].value, WIDEST_LIMITS)
            if isinstance(body, Execute):
                for p in body.prices:
                    price = p.price_e8.to_bytes(32, "big")
                    statements.append(Statement("settlement", p.series, price))
                    if p.series in price_slots:
                        # Another strike of the same expiry at another price would be a second price of that expiry.
                        statements.append(Statement("settlement_key", price_slots[p.series], price))
            slot = planned.vault_id + encode_u64(planned.sequence)
            statements.append(Statement("packet", slot, signed, plan.k, planned.timeout))
            digests.append((planned.vault_id, planned.sequence, signed))
        self.journal.record_statements(statements, proven_times)
        reach("after_packet_journal")
        return tuple(
            PacketSignature(vault_id, sequence, self.operator, self._sign(signed))
            for vault_id, sequence, signed in digests
        )

    def sign_envelope(self, kind: str, body: bytes) -> Envelope:
        """Put a message into an envelope: numbered, bound to this boot. Proposals go through `sign_proposal`.

        Raises:
            Rejected: ``proposal_door``.
        """
        if kind == PROPOSAL_TYPE:
            raise Rejected("a proposal is a statement of its slot: sign_proposal", reason="proposal_door")
        return self._sign_envelope(kind, body)

    def sign_proposal(self, proposal: Proposal) -> Envelope:
        """Propose, once per (k, r).

        Raises:
            Conflict: another proposal of this slot was signed. Rejected: ``quarantine``.
        """
        slot = encode_u64(proposal.k) + encode_u64(proposal.r)
        self.journal.record_statements([Statement("proposal", slot, compute_digest(proposal), proposal.k)], {})
        return self._sign_envelope(PROPOSAL_TYPE, encode_document(proposal))

    def sign_parameters(self, parameters: Parameters, committee: Committee) -> bytes:
        """Agree to a parameter set, one per version.

        Raises:
            Conflict: another set under this version was signed. Rejected: ``quarantine``.
        """
        digest = compute_digest(parameters)
        self.journal.record_statements([Statement("parameters", encode_u64(parameters.version), digest)], {})
        return self._sign(compute_parameters_statement(committee, digest))

    def sign_observation(self, vault_id: bytes, sequence: int, head: bytes, height: int, time: int) -> bytes:
        """Say what the own endpoints agree on (protocol.md 11): one head per (vault, number), again at later heights, never a lower number.

        A lower number at a later time would take back what was said, and could make an absence out of it. A quarantine forbids it not: what a
        lost journal forgot is still what the endpoints show, and a silence of n - m + 1 keys that waits for the vault's time would never end.

        Args:
            vault_id: 32 bytes.
            sequence: number of the newest outbox packet.
            head: 32 bytes, after that packet.
            height: of the state that was read (slot).
            time: of that state, unix seconds.

        Raises:
            Conflict: another head was signed for this number. Rejected: ``old_number``.
        """
        highest = self.journal.get_highest_number("observation", vault_id)
        if highest is not None and sequence < highest:
            raise Rejected(
                "this key has signed a later number of this vault",
                got=sequence,
                expected=f">= {highest}",
                reason="old_number",
            )
        self.journal.record_statements([Statement("observation", vault_id + encode_u64(sequence), head)], {})
        return self._sign(compute_observation_digest(vault_id, height, time, sequence, head))

    def sign_attestations(
        self, vault_id: bytes, state: StateAttestation, packets: PacketAttestation | None
    ) -> tuple[bytes, ...]:
        """Attest a proven state in the format of other stacks (ibc-v2.md 7): of one vault ever, one time a height, one commitment a path.

        What is signed there names neither chain nor vault, so a key that attests two could be believed of the wrong one.

        Args:
            vault_id: 32 bytes, whose key this is in that format from now on.
            state: height and time.
            packets: commitments under paths; None signs the state alone.

        Raises:
            Conflict: this key attested otherwise. Rejected: ``quarantine``, or as the encoders.
        """
        data = encode_state_attestation(state)
        statements = [
            Statement("attestor", b"", vault_id),
            Statement("attested_time", vault_id + encode_u64(state.height), encode_u64(state.timestamp_s)),
        ]
        signed = [(Tag.STATE, data)]
        if packets is not None:
            signed.append((Tag.PACKET, encode_packet_attestation(packets)))
            statements += [Statement("attested_path", vault_id + e.path, e.commitment) for e in packets.entries]
        self.journal.record_statements(statements, {})
        return tuple(sign_attestation(self._key.reveal(), tag, said) for tag, said in signed)

    def _sign_envelope(self, kind: str, body: bytes) -> Envelope:
        self._sequence += 1
        bare = Envelope(self.operator, self.journal.boot_id, self._sequence, kind, body)
        signature = self._sign(compute_envelope_digest(bare, self._committee_id))
        return Envelope(bare.operator, bare.boot_id, bare.sequence, kind, body, signature)

    def _sign(self, digest: bytes) -> bytes:
        return sign_digest(self._key.reveal(), digest)


def sign_pause(private_key: Secret, vault_id: bytes, operator_epoch: int) -> bytes:
    """An operator's pause of a vault in an epoch (protocol.md 4.1). Needs no journal: it is the only thing to say in its slot."""
    return sign_digest(private_key.reveal(), compute_pause_digest(vault_id, operator_epoch))


class PriceSigner:
    """A price reporter's key: one report per (source, underlying, stamp), one mark per expiry beside."""

    def __init__(self, private_key: Secret) -> None:
        self._key = private_key
        self._said: dict[tuple[object, ...], bytes] = {}
        self.address = bytes(get_address(private_key.reveal()))

    def __repr__(self) -> str:
        return f"PriceSigner(0x{self.address.hex()})"

    def sign_report(self, report: Report) -> bytes:
        """Sign a report; Conflict ``signed_otherwise`` for a second value of a stamp."""
        digest = compute_report_digest(
            report.source,
            report.underlying,
            report.stamp,
            report.cumulative_e8_seconds,
            report.spot_e8,
            report.confidence_e8,
        )
        return self._sign(("report", report.source, report.underlying, report.stamp), digest)

    def sign_mark(self, mark: Mark) -> bytes:
        """Sign a mark; Conflict ``signed_otherwise`` for a second value of a stamp."""
        digest = compute_mark_digest(
            mark.source, mark.underlying, mark.expiry, mark.stamp, mark.forward_e8, mark.svi_e18, mark.confidence_e8
        )
        return self._sign(("mark", mark.source, mark.underlying, mark.expiry, mark.stamp), digest)

    def _sign(self, slot: tuple[object, ...], digest: bytes) -> bytes:
        if self._said.setdefault(slot, digest) != digest:
            raise Conflict("this key has signed another price there", reason="signed_otherwise")
        return sign_digest(self._key.reveal(), digest)
