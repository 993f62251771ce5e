"""submit: carry certified packets to their vaults, exactly once in effect (protocol.md 9).

Intent row, then build and sign, then store the raw transaction, then send, then follow. A transaction that "succeeded" proves
nothing; only the Ack read by watch ends the work. Anyone may submit: operators take turns by patience, so that a dead
submitter delays and two at once are harmless (`recv` is at most once).
"""

from __future__ import annotations

import asyncio

from chains.base import OUT_OF_TURN, PREPARE_AGAIN, Chain, Outcome, SignedTx, Submitter
from messages.bodies import CLEARING_CLIENT, ENCODING, PORT, VERSION
from messages.digests import Certificate, verify_certificate
from messages.errors import Rejected, Unavailable
from messages.ids import get_vault_client
from messages.packet import Packet, Payload
from relayer.killpoints import reach
from relayer.node import Node
from relayer.rules.submission import Action, get_action
from relayer.store import PacketRecord, TxRecord

MAX_TRANSACTIONS_PER_PACKET = 12
"""Bumps of one packet: with 10 % each the fee has tripled; after that a human looks at the fees."""


async def step(node: Node) -> None:
    """Look at every open packet once, at all vaults at the same time: one plan's packets do not wait for each other's nodes.

    Raises:
        Unavailable: an endpoint failed. Rejected: the chain refuses the call.
    """
    # what is certified and not sent goes before asking what became of what was sent
    vault_ids = sorted(node.vault_ids, key=lambda v: not _has_unsent(node, v))
    results = await asyncio.gather(*(_submit_vault(node, v) for v in vault_ids), return_exceptions=True)
    bugs = [r for r in results if isinstance(r, BaseException) and not isinstance(r, Rejected | Unavailable)]
    if bugs:
        raise bugs[0]
    # One vault's trouble stops no other; the first is told when all had their turn.
    for vault_id, error in zip(vault_ids, results, strict=True):
        if isinstance(error, Rejected | Unavailable):
            error.source = error.source or node.chains[vault_id].chain_id
            raise error


def _has_unsent(node: Node, vault_id: bytes) -> bool:
    return any(
        p.vault_id == vault_id
        and node.store.get_certificate_signatures(p) is not None
        and not node.store.get_transactions(packet=p)
        for p in node.store.get_packets("open")
    )


async def _submit_vault(node: Node, vault_id: bytes) -> None:
    chain = node.chains[vault_id]
    if chain.submitter is None or node.store.is_halted(f"chain:{chain.chain_id}"):
        return
    packets = [p for p in node.store.get_packets("open") if p.vault_id == vault_id]
    certificates = {p.commitment: node.store.get_certificate_signatures(p) for p in packets}
    certified_numbers = {p.sequence for p in packets if certificates[p.commitment] is not None}
    for packet in packets:
        certified = certificates[packet.commitment]
        if certified is None:
            if packet.sequence in certified_numbers:
                continue  # its twin, from another plan of that k with m votes, got the signatures
            return  # packets of a vault go in order
        if not await _submit_packet(node, chain, chain.submitter, packet, certified):
            return


async def _submit_packet(
    node: Node,
    chain: Chain[object, object, object, object],
    submitter: Submitter,
    packet: PacketRecord,
    certified: tuple[int, tuple[bytes, ...]],
) -> bool:
    """Do what is next for one packet; True once the next number may be sent too."""
    now, store = node.clock.now(), node.store
    committee = node.get_committee()
    transactions = store.get_transactions(packet=packet)
    last = transactions[-1] if transactions else None
    outcome = await _follow(node, submitter, last) if last is not None else Outcome.UNKNOWN
    operators = committee.operators
    # Anybody may carry: who is not in the set (any more) comes after those who are.
    is_member = node.signer.operator in operators
    rank = (operators.index(node.signer.operator) - packet.k) % len(operators) if is_member else len(operators)
    action = get_action(
        now=now,
        chain_time=node.get_proven_times()[packet.vault_id],
        timeout=packet.timeout,
        certified_at=certified[0],
        rank=rank,
        takeover_s=node.timing.takeover_s,
        is_stored=last is not None,
        sent_at=None if last is None else last.sent_at,
        outcome=outcome.value,
        bump_s=node.timing.bump_s,
    )
    if action is Action.WAIT:
        return outcome is Outcome.INCLUDED
    if action is Action.SEND_AGAIN and last is not None:
        await _send(node, submitter, last.id, last.signed)
        return True
    if len(transactions) >= MAX_TRANSACTIONS_PER_PACKET:
        return False
    key = (packet.vault_id, packet.sequence, packet.commitment)
    if now < node.submit_not_before.get(key, 0):
        return False
    certificate = make_certificate(packet, certified[1])
    verify_certificate(certificate, committee.operators, committee.threshold)
    store.record_intent(packet.vault_id, packet.sequence, packet.commitment, now)
    previous = [t.signed for t in store.get_transactions(chain=chain.chain_id, open_only=True)]
    try:
        signed = await submitter.prepare(certificate, previous)
    except Rejected as error:
        # If no Ack comes of what was first, this is looked at again later.
        node.submit_not_before[key] = now + node.timing.bump_s
        if error.reason == OUT_OF_TURN:
            node.log.info("another was first", chain=chain.chain_id, sequence=packet.sequence)
            return False
        raise
    node.submit_not_before.pop(key, None)
    row = store.record_transaction(signed, packet.commitment, now)
    node.log.debug("prepared", chain=chain.chain_id, sequence=packet.sequence)
    await _send(node, submitter, row, signed)
    node.log.info("sent", chain=chain.chain_id, sequence=packet.sequence, tx=signed.tx_id, again=last is not None)
    return True


async def _follow(node: Node, submitter: Submitter, last: TxRecord) -> Outcome:
    outcome = await submitter.outcome(last.signed)
    if outcome.value != last.outcome:
        node.store.record_outcome(last.id, outcome.value)
    return outcome


async def _send(node: Node, submitter: Submitter, row: int, signed: SignedTx) -> None:
    try:
        await submitter.send(signed)
    except Unavailable as error:
        if error.reason in PREPARE_AGAIN:
            # Handed over and refused for good: from now on it counts as one that stays out of a block, and is replaced in its time.
            node.store.record_sent(row, node.clock.now())
        raise
    reach("after_send")
    node.store.record_sent(row, node.clock.now())


def make_certificate(packet: PacketRecord, signatures: tuple[bytes, ...]) -> Certificate:
    """The certificate of a stored packet."""
    payload = Payload(PORT, PORT, VERSION, ENCODING, packet.value)
    inbox = Packet(packet.sequence, get_vault_client(packet.vault_id), CLEARING_CLIENT, packet.timeout, (payload,))
    return Certificate(inbox, packet.vault_id, packet.operator_epoch, signatures)
