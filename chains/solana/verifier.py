"""Binds one vault's configuration to the rules of the Solana family. No network, clock or disk.

Program and first operator sets come from the configuration, never from what is verified (style.md 4, habit 15). The first m observations are
the checkpoint: they are of the set in force and of this vault, and there is no history before them that could be another. Each later set is
proven by the one before it (`rotation`) and is part of the trusted state from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from chains.base import Codec, Head, Point, Verifier
from chains.solana import codec, observations, proofs, rotation
from chains.solana.address import decode_key, encode_key
from chains.solana.types import Attested, Handover, OperatorSet, Trusted
from messages.canonical import decode_canonical, decode_hex, encode_canonical, encode_hex
from messages.digests import compute_vault_id, verify_operators
from messages.errors import Rejected
from messages.ids import ChainId
from messages.outbox import Fact, ProvenHead

MAX_SETTINGS_BYTES = 16_384
MAX_SETS = 64
ZERO32 = bytes(32)


@dataclass(frozen=True)
class SolanaSettings:
    """The operator's choices: the vault program (32 bytes), and who signs observations from when on."""

    program: bytes
    sets: tuple[OperatorSet, ...]


@dataclass(frozen=True)
class SolanaRules:
    """What decides about claims of one vault.

    vault: its state account, 32 bytes. sets: who signs, from when on, as far as people say; later ones are proven. program: what owns the
    state account, 32 bytes; an operator signs nothing about an account of another owner.
    """

    chain: str
    vault: bytes
    sets: tuple[OperatorSet, ...]
    program: bytes

    @property
    def vault_id(self) -> bytes:
        """The vault id (protocol.md 2)."""
        return compute_vault_id(self.chain, self.vault)

    def follow(self, proven: Sequence[Handover], more: Sequence[Handover] = (), clock: int = 0) -> rotation.Succession:
        """The operator sets after handovers that were verified before and after others that were not; see `rotation.follow`."""
        known = rotation.follow(self.vault_id, rotation.Succession(self.sets), proven)
        return rotation.follow(self.vault_id, known, more, clock)


def build_rules(chain: str, vault_account: bytes, settings: str) -> SolanaRules:
    """The rules of a vault: CAIP-2 chain, 32-byte account, settings text; Rejected ("bad_config", "bad_address")."""
    if not chain.startswith("solana:"):
        raise Rejected("not a chain of the Solana family", got=chain, expected="solana:...", reason="bad_config")
    if len(vault_account) != 32 or not any(vault_account):
        raise Rejected("a vault's account has 32 bytes and is not zero", got=vault_account, reason="bad_address")
    found = decode_settings(settings)
    return SolanaRules(chain, vault_account, found.sets, found.program)


# ---- verifier ---------------------------------------------------------------------------------------------------------


class SolanaVerifier(Verifier[Attested, Trusted, Attested, Attested]):
    """The rules of one vault. Reasons of refusals: see `observations` and `proofs`."""

    def __init__(self, rules: SolanaRules) -> None:
        self._rules = rules

    def verify_bootstrap(self, bootstrap: Attested, now: int) -> Trusted:
        """See `observations.verify_first`, by the sets that the handovers of the bootstrap lead to; also as `rotation.follow`."""
        return self.verify_alone(None, bootstrap, now)

    def verify_alone(self, trusted: Trusted | None, claim: Attested, now: int) -> Trusted:
        """See `Verifier.verify_alone`: operators that are in force already are replaced by nobody."""
        proven, clock = ((), 0) if trusted is None else (trusted.handovers, trusted.clock)
        known = self._rules.follow(proven, claim.handovers, clock)
        after = observations.verify_first(self._rules.vault_id, known.sets, claim, now)
        return replace(after, handovers=known.handovers)

    def verify_update(self, trusted: Trusted, update: Attested, now: int) -> Trusted:
        """See `observations.verify_update`, by the sets that are known and those that the handovers of the update lead to.

        An update that is no newer and proves the next operators is a step too: all else stays. Rejected and Conflict also as `rotation.follow`.
        """
        before = self._rules.follow(trusted.handovers)
        known = self._rules.follow(trusted.handovers, update.handovers, trusted.clock)
        bare = replace(trusted, handovers=())
        if known != before:
            stood = observations.verify_attested(self._rules.vault_id, known.sets, update)
            if stood.slot <= trusted.slot and (stood.sequence != trusted.sequence or stood.head == trusted.head):
                return replace(trusted, handovers=known.handovers)
        after = observations.verify_update(bare, known.sets, update, now)
        return replace(after, handovers=known.handovers)

    def verify_head(self, trusted: Trusted, head: Head, proof: Attested) -> ProvenHead:
        """See `proofs.verify_head`: the observations themselves are the evidence, and must be those of the trusted state.

        Rejected also: "wrong_number", "wrong_evidence".
        """
        if head.sequence != trusted.sequence:
            raise Rejected(
                "not the number that counts", got=head.sequence, expected=trusted.sequence, reason="wrong_number"
            )
        sets = self._rules.follow(trusted.handovers).sets
        found = observations.verify_attested(self._rules.vault_id, sets, proof)
        if found != replace(trusted, handovers=()):
            raise Rejected("observations of another state", got=found.sequence, reason="wrong_evidence")
        return proofs.verify_head(trusted, head.head, codec.encode_attested(proof), chain=ChainId(self._rules.chain))

    def verify_facts(self, trusted: Trusted, facts: Sequence[Fact]) -> None:
        """See `rotation.verify_in_force`."""
        rotation.verify_in_force(self._rules.follow(trusted.handovers).sets, facts, trusted.clock)

    def make_succession(
        self, trusted: Trusted, before: bytes, facts: Sequence[Fact], proof: Attested
    ) -> Attested | None:
        """See `Verifier.make_succession`: the same statements again, with the handovers that the facts make of them."""
        known = self._rules.follow(trusted.handovers)
        made = self._rules.follow(trusted.handovers, rotation.make_handovers(before, facts, proof), trusted.clock)
        if made.handovers == known.handovers:
            return None
        new = tuple(handover for handover in made.handovers if handover not in known.handovers)
        return replace(proof, handovers=new)

    def add_known(self, trusted: Trusted, update: Attested) -> Attested:
        """See `Verifier.add_known`: all handovers that are known, then those that only the update has."""
        known = {rotation.get_set(handover.rotation) for handover in trusted.handovers}
        more = (h for h in update.handovers if rotation.get_set(h.rotation) not in known)
        return replace(update, handovers=(*trusted.handovers, *more))

    def get_point(self, trusted: Trusted) -> Point:
        """Slot, no hash (none is proven), and the lowest clock that m operators have seen."""
        return Point(trusted.slot, ZERO32, trusted.clock)

    def is_fresh(self, trusted: Trusted, now: int) -> bool:
        """Always: signatures of operators do not grow old; how old the state is, its clock tells."""
        del trusted, now
        return True


# ---- bytes ------------------------------------------------------------------------------------------------------------


class SolanaCodec(Codec[Attested, Trusted, Attested, Attested]):
    """Bytes of the family's objects (see `codec`). Decoders: Rejected ("malformed", "size", "not_canonical")."""

    def encode_trusted(self, trusted: Trusted) -> bytes:
        """See `codec.encode_trusted`."""
        return codec.encode_trusted(trusted)

    def decode_trusted(self, data: bytes) -> Trusted:
        """See `codec.decode_trusted`."""
        return codec.decode_trusted(data)

    def encode_bootstrap(self, bootstrap: Attested) -> bytes:
        """See `codec.encode_attested`."""
        return codec.encode_attested(bootstrap)

    def decode_bootstrap(self, data: bytes) -> Attested:
        """See `codec.decode_attested`."""
        return codec.decode_attested(data)

    def encode_update(self, update: Attested) -> bytes:
        """See `codec.encode_attested`."""
        return codec.encode_attested(update)

    def decode_update(self, data: bytes) -> Attested:
        """See `codec.decode_attested`."""
        return codec.decode_attested(data)

    def encode_proof(self, proof: Attested) -> bytes:
        """See `codec.encode_attested`."""
        return codec.encode_attested(proof)

    def decode_proof(self, data: bytes) -> Attested:
        """See `codec.decode_attested`."""
        return codec.decode_attested(data)


# ---- settings ---------------------------------------------------------------------------------------------------------


def encode_settings(settings: SolanaSettings) -> str:
    """Canonical JSON of the program (base58) and the operator sets; Rejected ("bad_address")."""
    rows = [
        {"operators": [encode_hex(o) for o in one.operators], "since": one.since, "threshold": one.threshold}
        for one in settings.sets
    ]
    return encode_canonical({"operator_sets": rows, "program": encode_key(settings.program)}).decode()


def decode_settings(text: str) -> SolanaSettings:
    """The choices in a settings text; Rejected ("bad_config") for anything that makes no sense."""
    found = decode_canonical(text.encode(), max_bytes=MAX_SETTINGS_BYTES)
    if not isinstance(found, dict) or set(found) != {"operator_sets", "program"}:
        raise _refuse(found)
    rows = found["operator_sets"]
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_SETS:
        raise _refuse(found)
    sets = tuple(_read_set(row) for row in rows)
    if any(a.since >= b.since for a, b in pairwise(sets)):
        raise _refuse(found)
    try:
        program = decode_key(found["program"])
    except Rejected as error:
        raise _refuse(found["program"]) from error
    if program == ZERO32:  # the system program: it owns every account that nobody has made anything of
        raise _refuse(found["program"])
    return SolanaSettings(program, sets)


def _read_set(row: Any) -> OperatorSet:
    if not isinstance(row, dict) or set(row) != {"operators", "since", "threshold"}:
        raise _refuse(row)
    since, threshold, operators = row["since"], row["threshold"], row["operators"]
    numbers = (since, threshold)
    if not isinstance(operators, list) or any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in numbers):
        raise _refuse(row)
    one = OperatorSet(since, tuple(decode_hex(operator, 20) for operator in operators), threshold)
    try:
        verify_operators(one.operators, one.threshold)
    except Rejected as error:
        raise _refuse(row) from error
    return one


def _refuse(got: object) -> Rejected:
    return Rejected("settings of a Solana vault that make no sense", got=str(got)[:200], reason="bad_config")
