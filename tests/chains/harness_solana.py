"""The Solana family for the contract suite: a simulated cluster with four endpoints, the real vault, a funded user, four operators that look for themselves.

Each operator observes through the same four endpoints, which is the worst case: no liar among them is one operator's alone. What they
say enters the pool of the node under test as it would over the network, lies of operators included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, ClassVar

from solders.pubkey import Pubkey

from chains import base
from chains.registry import build_solana_sim_chain
from chains.solana.codec import decode_unsigned, encode_unsigned
from chains.solana.observations import compute_observation_digest
from chains.solana.sim import ManualClock, SimSolana
from chains.solana.types import Attested, Observation, OperatorSet, SignedObservation
from contracts.solana import client
from messages.digests import get_address, sign_digest
from messages.errors import Rejected
from messages.outbox import get_start_cursor
from tests.builders import OPERATOR_KEYS, OPERATORS, make_key
from tests.chains.harness import START, THRESHOLD, HeaderHarness

CAP = 10**12
OTHER_OPERATORS = tuple(sorted(get_address(make_key(f"other operator {i}")) for i in range(4)))
OPERATOR_LIES = frozenset({"bad_signature", "too_few", "future", "forged_state", "equivocate"})


class SolanaHarness(HeaderHarness):
    """See the head of `tests.chains.test_every_family`.

    What other families' endpoints forge in headers, operators of this one say:
        bad_signature   what it says does not bear its signature
        too_few         it says nothing of its own, and shows another's signature for its own
        future          it gives a clock one hour ahead
        forged_state    it signs a head of its own invention
        equivocate      m operators sign a second head for a number that counts already, and the node has forgotten what they said first
    """

    # how the family spells what the suite wants to see refused
    update_reasons: ClassVar = {
        "bad_signature": "unknown_signer",
        "too_few": "too_few",
        "future": "future",
        "forged_state": "wrong_link",
    }
    lies: ClassVar = {
        # another cluster has another genesis, and nothing of ours
        "wrong_chain": {"genesis_hash": "1" * 32, "missing_vault": True, "no_index": True},
        "withhold_all": {"drop_events": True},
        "withhold_some": {"drop_event_every": 2},
        "forge_packet": {"forge_events": True},
        "undone": {"undo_results": True},
    }
    expires: ClassVar = False
    told: ClassVar = frozenset({"forge_head", "forge_number"})
    is_spoken: ClassVar = True
    waiting: ClassVar = base.Outcome.UNKNOWN  # nodes pass a transaction on to the next leaders and keep no pool

    def __init__(self, n_endpoints: int = 4) -> None:
        self.clock = ManualClock(START)
        self.network = net = SimSolana("sim-1", self.clock, n_endpoints)
        self.user_key = net.make_key("user")
        self.submit_key = net.make_key("submitter")
        self.user = net.get_account_key(self.user_key)
        self.asset = net.create_mint(6)
        net.mint_to(self.asset, self.user, CAP)
        caps = {self.asset: (CAP, CAP, CAP)}
        self.vault = net.create_vault(self.user_key, OPERATORS, THRESHOLD, self.user, 86_400, caps)
        self.calls = client.Vault(net.program, Pubkey.from_bytes(self.vault))
        self.payer = Pubkey.from_bytes(self.user)
        net.send(
            self.user_key, [client.make_open(self.calls, self.payer, client.get_balance_id(self.user, self.asset))]
        )
        net.finalize()
        self.operator_lies: dict[int, str] = {}
        self.operators: Sequence[bytes] = OPERATORS
        self.chain = self.make_chain()
        self.observers = [self._get_observer(self.make_chain()) for _ in OPERATORS]
        self.start = get_start_cursor(self.chain.vault_id)

    def move_checkpoint(self) -> None:
        """What a node is told to start from are operators, not a header: others from now on."""
        self.operators = OTHER_OPERATORS

    def make_chain(self, **changes: Any) -> base.Chain[Any, Any, Any, Any]:
        """A chain object as after a restart: nothing is remembered but the configuration."""
        sets = (OperatorSet(0, tuple(self.operators), THRESHOLD),)
        return build_solana_sim_chain(self.network, self.vault, self.submit_key, operator_sets=sets, **changes)

    def _get_observer(self, chain: base.Chain[Any, Any, Any, Any]) -> base.Observer:
        assert chain.observer is not None
        return chain.observer

    # ---- what happens on the chain

    def deposit(self, amount: int) -> None:
        """One outbox packet: Deposited(user, asset, amount), confirmed, not yet final."""
        call = client.make_deposit(self.calls, self.payer, self.asset, amount, self.user)
        self.network.send(self.user_key, [call])
        self.network.mine()

    def reorg(self) -> None:
        """Every block that is not final is replaced by one without its transactions; they wait again."""
        self.network.fork()

    # ---- lies

    def lie(self, index: int, kind: str) -> None:
        """Make one endpoint, or one operator, misbehave in one way."""
        if kind == "equivocate":
            self.operator_lies |= dict.fromkeys(range(THRESHOLD), kind)
            self.chain = self.make_chain()
            self.clock.advance(1)
        elif kind in OPERATOR_LIES:
            self.operator_lies[index] = kind
        else:
            super().lie(index, kind)

    def get_stall(self) -> dict[str, Any]:
        return {"stall_slot": self.network.get_slot() - 2_000}

    def be_honest(self) -> None:
        self.operator_lies.clear()
        super().be_honest()

    def get_operator(self, index: int) -> str:
        """The name under which an operator is blamed."""
        return f"operator 0x{OPERATORS[index].hex()}"

    def get_liar(self, index: int, kind: str) -> str:
        return self.get_operator(index) if kind in OPERATOR_LIES else self.get_source(index)

    # ---- what operators say

    async def observe(self) -> tuple[dict[int, Observation], list[base.Blame]]:
        """What each operator sees through its endpoints, and whom it blames; who sees nothing sure is silent."""
        seen: dict[int, Observation] = {}
        blames: dict[base.Blame, None] = {}
        now = self.now()
        told = await asyncio.gather(*(one.observe(now) for one in self.observers), return_exceptions=True)
        for index, sighting in enumerate(told):
            if isinstance(sighting, base.Sighting):
                seen[index] = decode_unsigned(sighting.claim)
            elif not isinstance(sighting, base.Unseen):
                raise sighting
            blames |= dict.fromkeys(sighting.blames)
        return seen, list(blames)

    def speak(self, index: int, seen: Observation) -> bytes:
        """What an operator publishes of what it saw."""
        kind, key = self.operator_lies.get(index, ""), OPERATOR_KEYS[index]
        if kind == "too_few":
            key = OPERATOR_KEYS[(index + 1) % len(OPERATOR_KEYS)]
        signed = sign(key, distort(seen, kind, index), OPERATORS[index])
        if kind == "bad_signature":
            signed = spoil(signed)
        claim = encode_unsigned(signed.observation)
        return self.observers[index].encode_signed(claim, signed.operator, signed.signature)

    async def hear(self) -> tuple[base.Blame, ...]:
        seen, blames = await self.observe()
        observer = self._get_observer(self.chain)
        for index, observation in seen.items():
            name = self.get_operator(index)
            try:
                accepted = observer.accept(self.speak(index, observation), self.now())
            except Rejected as error:
                blames.append(base.Blame(self.chain.chain_id, name, error.reason, str(error)))
                continue
            if accepted.evidence is not None:
                blames.append(base.Blame(self.chain.chain_id, name, "equivocation", "two heads for one number"))
            elif any(contradicts(accepted, own) for own in seen.values()):
                blames.append(base.Blame(self.chain.chain_id, name, "other_head", accepted.head.hex()))
        return tuple(blames)

    async def restart(self, trusted: Any) -> Any:
        self.chain = self.make_chain()
        self.clock.advance(2)
        await self.hear()
        update = await self.chain.reader.update(self.get_source(0), trusted)
        return self.chain.verifier.verify_update(trusted, update, self.now())

    # ---- the pieces of the road

    async def bootstrap(self) -> Any:
        await self.hear()
        return await super().bootstrap()

    async def get_update(self, trusted: Any, index: int = 0) -> Any:
        """What the node would go on with; from an operator that lies: with as many as the lie needs to look like the word of m."""
        kind = self.operator_lies.get(index)
        if kind is None:
            await self.hear()
            return await super().get_update(trusted, index)
        seen, _ = await self.observe()
        members = [index, *(i for i in seen if i != index)][: THRESHOLD - (kind == "too_few")]
        signed = []
        for i in members:
            lie = kind if i == index or kind == "future" else ""
            one = sign(OPERATOR_KEYS[i], distort(seen[i], lie, i), OPERATORS[i])
            signed.append(spoil(one) if lie == "bad_signature" else one)
        gap = max(one.observation.sequence for one in signed) - min(one.observation.sequence for one in signed)
        return Attested(tuple(sorted(signed, key=lambda one: one.operator)), (sha256(b"forged").digest(),) * gap)


def contradicts(said: base.Accepted, own: Observation) -> bool:
    """Whether an operator that looks for itself sees that this is not so: another head for the number, or a number that came later."""
    if said.sequence == own.sequence:
        return said.head != own.head
    return said.sequence > own.sequence and said.height <= own.slot


def distort(seen: Observation, kind: str, index: int) -> Observation:
    """What a lying operator says instead."""
    if kind == "future":
        return replace(seen, clock=seen.clock + 3_600)
    if kind == "forged_state":  # each liar invents its own
        return replace(seen, sequence=max(seen.sequence, 1), head=sha256(b"forged %d" % index + seen.head).digest())
    if kind == "equivocate":
        return replace(seen, sequence=max(seen.sequence, 1), head=sha256(b"second" + seen.head).digest())
    return seen


def sign(key: bytes, observation: Observation, operator: bytes) -> SignedObservation:
    """A statement under an operator's name, signed by a key."""
    return SignedObservation(observation, operator, sign_digest(key, compute_observation_digest(observation)))


def spoil(signed: SignedObservation) -> SignedObservation:
    """The same statement with another signature."""
    r = signed.signature
    return replace(signed, signature=r[:40] + bytes([r[40] ^ 1]) + r[41:])
