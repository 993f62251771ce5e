"""What this operator's own endpoints agree on about a vault of Solana, and what operators say to each other about it.

No header of Solana proves an account (ibc-v2.md 9), so an operator asks at least four endpoints that do not depend on each other for the vault
and the Clock of one finalized state, all at the same time, and says what enough of them say; where they do not agree it says nothing. Fewer
answers never lower the bar: an endpoint that is silent counts as one that does not agree (incident E1).

Source: protocol.md 11; ibc-v2.md 8 (hardening 5 to 7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chains.base import Accepted, Blame, Observer, Sighting, Unseen
from chains.solana.client import SolanaClient
from chains.solana.codec import (
    decode_handovers,
    decode_observation,
    decode_unsigned,
    encode_handovers,
    encode_observation,
    encode_unsigned,
    is_handovers,
)
from chains.solana.observations import (
    Kind,
    NoAgreement,
    Reading,
    compute_agreement,
    compute_needed,
    get_operator_set,
    verify_shape,
)
from chains.solana.pool import Pool, verify_evidence
from chains.solana.types import Observation, SignedObservation
from messages.errors import Rejected, RelayerError, Unavailable

PATIENCE_S = 8.0
"""How long one observation waits for its endpoints."""
MAX_TOLD_BYTES = 350_000
"""Of what is told of the operators at once: hundreds of usual rotations."""
GRACE_S = 0.5
"""How long it waits for the others once enough agree: a silent endpoint must not make everything late."""


@dataclass
class _Answers:
    """What the endpoints have said in one observation; who has not answered yet counts as an error."""

    sources: Sequence[str]
    now: int
    readings: dict[str, Reading] = field(default_factory=dict)
    faults: dict[str, RelayerError] = field(default_factory=dict)

    def get_readings(self) -> list[Reading]:
        return [self.readings.get(source, Reading(source, Kind.ERRORED)) for source in self.sources]

    def is_decided(self) -> bool:
        try:
            compute_agreement(self.get_readings(), self.now)
        except Unavailable as error:
            return error.reason == "vault_missing"
        return True

    def get_faults(self) -> dict[str, tuple[str, str]]:
        """Source -> (reason, detail) of those that gave nothing that can be used."""
        late = ("timeout", f"no answer while the others answered, or within {PATIENCE_S:.0f} s")
        return {
            source: _describe(self.faults[source]) if source in self.faults else late
            for source in self.sources
            if source not in self.readings
        }


class SolanaObserver(Observer):
    """Observer of one vault. Shares the pool with the reader of the same chain."""

    def __init__(self, client: SolanaClient, pool: Pool) -> None:
        self._client = client
        self._rules = client.rules
        self._pool = pool
        self._last: Observation | None = None
        compute_needed(len(client.sources))

    async def observe(self, now: int) -> Sighting:
        """The finalized state that enough endpoints show; ``now`` in unix seconds.

        Raises Unseen: "abstain" (they do not agree, or agree on less than they did before), "vault_missing".
        """
        answers = await self._ask_all(now)
        faults = answers.get_faults()
        try:
            agreement = compute_agreement(answers.get_readings(), now)
            faults |= {fault.source: (fault.reason, fault.detail) for fault in agreement.faults}
            seen = agreement.observation
            faults |= _find_misplaced(answers.get_readings(), seen)
            self._verify_forward(seen)
        except Unavailable as error:
            if isinstance(error, NoAgreement):
                faults |= {fault.source: (fault.reason, fault.detail) for fault in error.faults}
            raise Unseen(error, self._make_blames(faults)) from error
        verify_shape(seen)
        self._last = seen
        return Sighting(
            sequence=seen.sequence,
            head=seen.head,
            height=seen.slot,
            time=seen.clock,
            claim=encode_unsigned(seen),
            blames=self._make_blames(faults),
        )

    def encode_signed(self, claim: bytes, operator: bytes, signature: bytes) -> bytes:
        """See `Observer.encode_signed`."""
        return encode_observation(SignedObservation(decode_unsigned(claim), operator, signature))

    def accept(self, data: bytes, now: int) -> Accepted | None:
        """See `Observer.accept`; reasons as `codec.decode_observation` and `Pool.add`, or `codec.decode_handovers` and `Pool.learn`."""
        if not is_handovers(data):
            return self._pool.add(decode_observation(data), now)
        self._pool.learn(decode_handovers(data), now)
        return None

    def tell_succession(self) -> bytes:
        """See `Observer.tell_succession`."""
        handovers = self._pool.handovers
        while handovers:
            told = encode_handovers(handovers)
            if len(told) <= MAX_TOLD_BYTES:
                return told
            handovers = handovers[1:]  # whoever needs the oldest names a later set in the settings
        return b""

    def get_operators(self, now: int) -> tuple[bytes, ...]:
        """See `Observer.get_operators`."""
        try:
            return get_operator_set(self._pool.sets, now).operators
        except Rejected:
            return ()  # before the first set that people named

    def verify_evidence(self, first: bytes, second: bytes) -> bytes:
        """See `Observer.verify_evidence`."""
        return verify_evidence(self._rules, first, second, self._pool.sets)

    # ------------------------------------------------------------------ asking

    async def _ask_all(self, now: int) -> _Answers:
        answers = _Answers(self._client.sources, now)
        clock = asyncio.get_running_loop().time
        deadline = clock() + PATIENCE_S
        tasks = {asyncio.create_task(self._read(source)): source for source in answers.sources}
        pending = set(tasks)
        try:
            while pending and (left_s := deadline - clock()) > 0:
                done, pending = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    answer = task.result()
                    if isinstance(answer, Reading):
                        answers.readings[tasks[task]] = answer
                    else:
                        answers.faults[tasks[task]] = answer
                if answers.is_decided():
                    deadline = min(deadline, clock() + GRACE_S)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        return answers

    async def _read(self, source: str) -> Reading | RelayerError:
        """One endpoint's answer, or why it gives none that can be used."""
        # Never before the slot that counted last time: a balancer must not lead back to a node that sleeps.
        min_slot = 0 if self._last is None else self._last.slot
        try:
            found = await self._client.read_vault(source, "finalized", min_slot)
            if found.state is None:
                return Reading(source, Kind.MISSING)
            sequence, head = found.state.outbox_sequence, found.state.outbox_head
            seen = Observation(self._rules.vault_id, found.slot, found.clock.time, sequence, head)
            verify_shape(seen)
            return Reading(source, Kind.FOUND, seen)
        except (Rejected, Unavailable) as error:
            return error

    def _verify_forward(self, seen: Observation) -> None:
        """Refuse an agreement on less than what was agreed on before: a finalized outbox only grows.

        Another head for the same number is the signer's journal to refuse, which stops the chain for people to look.
        """
        last = self._last
        if last is None or seen.sequence >= last.sequence:
            return
        raise Unavailable(
            "the endpoints agree on less than they agreed on before: nothing is signed",
            got=(seen.sequence, seen.head.hex()),
            expected=f">= {last.sequence}",
            reason="abstain",
        )

    def _make_blames(self, faults: Mapping[str, tuple[str, str]]) -> tuple[Blame, ...]:
        chain, sources = self._rules.chain, self._client.sources
        return tuple(Blame(chain, source, *faults[source]) for source in sources if source in faults)


def _describe(error: RelayerError) -> tuple[str, str]:
    return error.reason or type(error).__name__.lower(), str(error)


def _find_misplaced(readings: Sequence[Reading], agreed: Observation) -> dict[str, tuple[str, str]]:
    """Those that show fewer packets at a later slot than the others, or more at a slot at which none of the others had so many."""
    found: dict[str, tuple[str, str]] = {}
    for reading in readings:
        o = reading.observation
        if o is not None and o.sequence < agreed.sequence and o.slot > agreed.slot:
            found[reading.source] = (
                "withheld",
                f"number {o.sequence} at slot {o.slot}, where {agreed.sequence} was final",
            )
        elif o is not None and o.sequence > agreed.sequence and o.slot <= agreed.slot:
            found[reading.source] = (
                "invented",
                f"number {o.sequence} at slot {o.slot}, where {agreed.sequence} was the last",
            )
    return found
