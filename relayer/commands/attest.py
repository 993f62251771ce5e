"""`relayer attest`: a proven head in the `attestations` format of other stacks, signed by this operator alone.

Whoever runs an attestations client of another stack (ibc-v2.md 7) can take m operators' files for one state and put their signatures together.
Nothing of ours is credited from that format: its digest names no chain and no client, so a key that attested two vaults could be played
off against itself. The signer's journal holds an operator's key to one vault, one time a height and one commitment a path (ibc-v2.md 8).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chains.solana.attestations import (
    MAX_ENTRIES,
    AttestationProof,
    AttestationsClient,
    PacketAttestation,
    PathEntry,
    StateAttestation,
    apply_update,
    decode_envelope_abi,
    decode_envelope_borsh,
    decode_envelope_protobuf,
    encode_envelope_abi,
    encode_envelope_borsh,
    encode_envelope_protobuf,
    encode_packet_attestation,
    encode_state_attestation,
    verify_membership,
)
from messages.canonical import encode_canonical
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.outbox import Fact
from messages.packet import compute_commitment, get_packet_commitment_path
from relayer.commands.control import read_standing
from relayer.commands.view import Loaded, open_view
from relayer.config import get_key_path, load_config, read_password
from relayer.render import Answer, format_time, hex_of
from relayer.store import HeadRecord

DEFAULT_PACKETS = 16
"""How many of the newest packets are attested where nobody says which."""

_ENVELOPES = (
    ("abi", encode_envelope_abi, decode_envelope_abi),
    ("protobuf", encode_envelope_protobuf, decode_envelope_protobuf),
    ("borsh", encode_envelope_borsh, decode_envelope_borsh),
)


def attest(config_path: Path, vault: str, first: int | None, last: int | None, out: Path, now: int) -> Answer:
    """Sign the newest proven head of a vault and some of its packets, and write the envelopes to a new file.

    Args:
        config_path: of a node that is stopped: its journal has one writer.
        vault: as `View.find_vault` takes it.
        first: number of the first packet; by default the newest `DEFAULT_PACKETS`.
        last: number of the last packet; by default the one at the head.
        out: the file, canonical JSON.
        now: unix seconds.

    Raises:
        Rejected: ``no_journal``, ``in_use``, ``not_operator``, ``quarantine``, ``halted``, ``unknown_vault``, ``no_head`` (nothing is proven yet),
            ``unknown_fact`` (packets that are none, or more than fit), ``file_exists``. Conflict: ``signed_otherwise``: this key attested
            another vault, another time of that height, or another commitment under a path.
    """
    from relayer.keys import Journal, Signer, load_key_file
    from relayer.service import QUARANTINE_MARGIN_S

    config = load_config(config_path).at(now)
    standing = read_standing(config, now)
    if not config.journal_path.is_file():
        raise Rejected(
            f"there is no journal at {config.journal_path}: relayer keys first-journal makes that of a fresh key",
            reason="no_journal",
        )
    if out.exists():
        raise Rejected(f"there is a file {out} already: nothing was signed", reason="file_exists")
    with open_view(Loaded(config.name, config.store_path, config.parameters, {})) as view:
        vault_id = view.find_vault(vault)
        chain = standing.get_chain(vault_id)
        if view.store.is_halted(f"chain:{chain}"):
            raise Rejected(f"{chain} is halted: relayer halts list says why", reason="halted")
        head = view.store.get_head(vault_id)
        if head is None:
            raise Rejected("no head of this vault is proven yet", got=vault, reason="no_head")
        facts = _get_facts(view.store, head, first, last)
    key = load_key_file(
        get_key_path(config.operator.key, config.path),
        read_password(config.operator.password, config.path),
        is_throwaway=config.operator.allow_throwaway_key,
    )
    longest_s = max(f.timeout_s for f in config.parameters.families)
    journal = Journal(config.journal_path, now, longest_s + QUARANTINE_MARGIN_S)
    try:
        signer = Signer(key, journal, standing.committee.id)
        if signer.operator not in standing.committee.operators:
            raise Rejected(
                "this key is no operator of the set in force: its word would count for nothing",
                got=hex_of(signer.operator),
                reason="not_operator",
            )
        state = StateAttestation(head.point.height, head.point.time)
        packets = PacketAttestation(head.point.height, tuple(make_entry(fact) for fact in facts))
        signatures = signer.sign_attestations(vault_id, state, packets if facts else None)
    finally:
        journal.close()
    proofs = {"state": AttestationProof(encode_state_attestation(state), (signatures[0],))}
    if facts:
        proofs["packets"] = AttestationProof(encode_packet_attestation(packets), (signatures[1],))
    _verify_readable(signer.operator, head.point.height, proofs, facts)
    document = _make_document(chain, vault_id, signer.operator, head, facts, proofs)
    _write(out, encode_canonical(document) + b"\n")
    numbers = f"packets {facts[0].sequence} to {facts[-1].sequence}" if facts else "no packets"
    text = (
        f"{out}: {chain} at {head.point.height} ({format_time(head.point.time)}), {numbers}, attested by {hex_of(signer.operator)}. Its key"
        " attests this vault alone from now on."
    )
    return Answer({**document, "file": str(out)}, [text])


def _get_facts(store: Any, head: HeadRecord, first: int | None, last: int | None) -> tuple[Fact, ...]:
    last = head.sequence if last is None else last
    first = max(1, last - DEFAULT_PACKETS + 1) if first is None else first
    if last == 0 and head.sequence == 0:
        return ()
    if not 1 <= first <= last <= head.sequence or last - first >= MAX_ENTRIES:
        raise Rejected(
            f"packets of the proven history, up to {MAX_ENTRIES} of them",
            got=f"{first} to {last}",
            expected=f"1 to {head.sequence}",
            reason="unknown_fact",
        )
    return tuple(store.iterate_facts(head.vault_id, first - 1, last))


def make_entry(fact: Fact) -> PathEntry:
    """Path and commitment of an outbox packet as an attestations client asks for them (ibc-v2.md 2, 3)."""
    path = get_packet_commitment_path(fact.packet.source_client, fact.packet.sequence)
    return PathEntry(keccak256(path), compute_commitment(fact.packet))


def _verify_readable(operator: bytes, height: int, proofs: dict[str, AttestationProof], facts: Sequence[Fact]) -> None:
    """Read every envelope as a client of the other stack would, before anybody gets it."""
    for _, encode, decode in _ENVELOPES:
        client, _ = apply_update(AttestationsClient((operator,), 1), decode(encode(proofs["state"])))
        for fact in facts:
            path = get_packet_commitment_path(fact.packet.source_client, fact.packet.sequence)
            proof = decode(encode(proofs["packets"]))
            verify_membership(client, height, proof, path, compute_commitment(fact.packet))


def _make_document(
    chain: str,
    vault_id: bytes,
    operator: bytes,
    head: HeadRecord,
    facts: Sequence[Fact],
    proofs: dict[str, AttestationProof],
) -> dict[str, Any]:
    return {
        "schema": "relayer/attestation/1",
        "chain": chain,
        "vault_id": hex_of(vault_id),
        "attestor": hex_of(operator),
        "height": head.point.height,
        "time": head.point.time,
        "sequence": head.sequence,
        "head": hex_of(head.head),
        "first_packet": facts[0].sequence if facts else 0,
        "last_packet": facts[-1].sequence if facts else 0,
        **{
            name: {
                "data": hex_of(proof.data),
                "signature": hex_of(proof.signatures[0]),
                **{kind: hex_of(encode(proof)) for kind, encode, _ in _ENVELOPES},
            }
            for name, proof in proofs.items()
        },
    }


def _write(path: Path, data: bytes) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise Rejected(f"there is a file {path} already: nothing was written", reason="file_exists") from None
    with os.fdopen(handle, "wb") as file:
        file.write(data)
