"""observe: say what the own endpoints agree on about a vault whose states nobody can prove, and take in what the others say.

Such a vault's state counts once m operators have said it (protocol.md 11). So every operator speaks: at once when the vault has a new packet,
else every so often, because time must be seen to go by before an absence is. What is said is in the signer's journal first, and goes into the
same pool as what the others say; watch draws on that pool.

Nothing said here is a fact. An operator that says another head than m others is named once the facts are on record; one that says two heads for
one number has made evidence against itself.
"""

from __future__ import annotations

from typing import Any

from chains.base import Accepted, Chain, Observer, Sighting, Unseen
from messages.documents import decode_document
from messages.errors import Conflict, Rejected
from relayer.node import Node, Said
from relayer.rules.quorum import compute_observation_equivocation
from relayer.rules.statements import Equivocation, SignedState

TELL_EVERY_S = 300
"""Seconds between two times that this operator says who the operators are: whoever joins late knows the first of them."""

MAX_SAID_BYTES = 786_432
"""Of a statement with what proves the operator sets; one about a state is far smaller."""

MAX_HEARD_PER_OPERATOR = 64
"""Heads of an operator that wait for the facts that judge them; the lowest numbers are kept, because they are judged first."""


async def step(node: Node, vault_id: bytes) -> bool:
    """Look at the vault once, and say what is there if it is worth saying; True if something was said.

    Raises:
        Unavailable: the own endpoints agree on nothing: this operator abstains. Rejected: what the journal or the pool refuses.
    """
    chain = node.chains[vault_id]
    judge_heard(node, vault_id)
    if chain.observer is None or node.store.is_halted(f"chain:{chain.chain_id}"):
        return False
    if node.signer.operator not in _get_counted(node, chain.observer):
        return False  # nobody would count it
    await _tell_succession(node, chain, chain.observer)
    try:
        sighting = await chain.observer.observe(node.clock.now())
    except Unseen as error:
        node.store.record_blames(error.blames, node.clock.now())
        raise
    node.store.record_blames(sighting.blames, node.clock.now())
    if not is_due(node, vault_id, sighting):
        return False
    try:
        await _say(node, chain, chain.observer, sighting)
    except Conflict as refusal:
        # Endpoints that agree now say otherwise than this key has said, or than m operators have: a human must look.
        node.blame(chain.chain_id, "own endpoints", refusal.reason, str(refusal))
        node.halt(f"chain:{chain.chain_id}", refusal)
        return False
    return True


def is_due(node: Node, vault_id: bytes, sighting: Sighting) -> bool:
    """Whether a sighting is worth saying: a new packet at once, time every so often, and at once when it ends an open packet."""
    said = node.said.get(vault_id)
    if said is None or (sighting.sequence, sighting.head) != (said.sequence, said.head):
        return True
    if sighting.time <= said.time or sighting.height <= said.height:
        return False
    timeouts = [p.timeout for p in node.store.get_packets("open") if p.vault_id == vault_id]
    if any(said.time < timeout <= sighting.time for timeout in timeouts):
        return True
    is_waiting = bool(timeouts) or node.progress.since is not None
    period_s = node.timing.observe_s if is_waiting else node.timing.observe_idle_s
    return sighting.time - said.time >= period_s


def _get_counted(node: Node, observer: Observer) -> set[bytes]:
    """Operators whose word on a vault counts now, or is about to: facts of another vault may know a rotation earlier than this one's word."""
    return {*node.get_committee().operators, *observer.get_operators(node.clock.now())}


async def _tell_succession(node: Node, chain: Chain[Any, Any, Any, Any], observer: Observer) -> None:
    """Say what proves the operators after the first, at once where it is new and again every so often."""
    succession, now = observer.tell_succession(), node.clock.now()
    last, at = node.told_successions.get(chain.vault_id, (b"", 0))
    if succession and (succession != last or now - at >= TELL_EVERY_S):
        node.told_successions[chain.vault_id] = succession, now
        await node.publish("observation", SignedState(chain.vault_id, succession))


async def _say(node: Node, chain: Chain[Any, Any, Any, Any], observer: Observer, sighting: Sighting) -> None:
    recorded = node.store.get_fact_head(chain.vault_id, sighting.sequence)
    if recorded is not None and recorded != sighting.head:
        raise Conflict(
            f"the own endpoints of {chain.chain_id} agree on another head than m operators",
            got=sighting.head,
            expected=recorded,
            reason="two_heads",
        )
    signature = node.signer.sign_observation(
        chain.vault_id, sighting.sequence, sighting.head, sighting.height, sighting.time
    )
    node.record_journal_tip()
    statement = observer.encode_signed(sighting.claim, node.signer.operator, signature)
    accepted = observer.accept(statement, node.clock.now())
    assert accepted is not None  # it is about a state
    _take(node, chain, accepted)
    node.said[chain.vault_id] = Said(sighting.sequence, sighting.head, sighting.height, sighting.time)
    node.log.debug("observed", chain=chain.chain_id, sequence=sighting.sequence, height=sighting.height)
    await node.publish("observation", SignedState(chain.vault_id, statement))


def accept(node: Node, body: bytes) -> Equivocation | None:
    """Take in what somebody says of a vault; what comes back is a proof that its author contradicts itself.

    The statement is signed inside, so anybody may carry it.

    Raises:
        Rejected: ``size``, ``malformed``, ``unknown_vault``, or what the family refuses: whoever sent it is to blame.
    """
    said = decode_document(SignedState, body, max_bytes=MAX_SAID_BYTES)
    chain = node.chains.get(said.vault_id)
    if chain is None or chain.observer is None:
        raise Rejected("a statement about no vault that needs one", got=said.vault_id, reason="unknown_vault")
    accepted = chain.observer.accept(said.statement, node.clock.now())
    if accepted is None:
        node.watch_wakes[chain.vault_id].set()
        return None
    _take(node, chain, accepted)
    if accepted.evidence is None:
        return None
    return compute_observation_equivocation(accepted.operator, said.vault_id, *accepted.evidence)


def verify_statements(node: Node, vault_id: bytes, first: bytes, second: bytes) -> bytes:
    """The operator that contradicts itself with two statements about a vault of this node (`quorum.VerifyStatements`)."""
    chain = node.chains.get(vault_id)
    if chain is None or chain.observer is None:
        raise Rejected("statements about no vault that needs them", got=vault_id, reason="unknown_vault")
    return chain.observer.verify_evidence(first, second)


def _take(node: Node, chain: Chain[Any, Any, Any, Any], accepted: Accepted) -> None:
    now = node.clock.now()
    heard_at = node.heard_at.setdefault(chain.vault_id, {})
    for operator in node.get_committee().operators:
        heard_at.setdefault(operator, now)
    heard_at[accepted.operator] = now
    heard = node.heard_heads.setdefault(chain.vault_id, {})
    heard.setdefault((accepted.operator, accepted.sequence), accepted.head)
    mine = sorted(sequence for operator, sequence in heard if operator == accepted.operator)
    for sequence in mine[MAX_HEARD_PER_OPERATOR:]:
        del heard[accepted.operator, sequence]
    judge_heard(node, chain.vault_id)
    if accepted.is_news:
        node.watch_wakes[chain.vault_id].set()


def judge_heard(node: Node, vault_id: bytes) -> None:
    """Compare what operators said with the facts on record: who signed another head than m operators is named."""
    heard, upto = node.heard_heads.get(vault_id, {}), node.store.get_cursor(vault_id).sequence
    for (operator, sequence), head in sorted(heard.items()):
        if sequence > upto:
            continue
        del heard[operator, sequence]
        recorded = node.store.get_fact_head(vault_id, sequence)
        if recorded is not None and recorded != head:
            detail = f"head 0x{head.hex()} for number {sequence} of {node.chains[vault_id].chain_id}, where m operators saw 0x{recorded.hex()}"
            node.blame("gossip", f"0x{operator.hex()}", "wrong_head", detail)
            node.log.error(
                "wrong head", operator=operator.hex(), chain=node.chains[vault_id].chain_id, sequence=sequence
            )
