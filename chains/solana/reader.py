"""What m operators have said counts; the packets behind it come from named endpoints, and nobody believes them before they fold.

A "header" of this family is m observations of operators on one history. They come through the pool, which the observer fills, so every source
gives the same ones; a source is needed for the packets between two observed numbers, and for those behind a head.

Source: protocol.md 11.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

from chains.base import Head, Reader, Span
from chains.solana.client import SolanaClient
from chains.solana.history import VaultHistory
from chains.solana.observations import choose_attested, verify_attested
from chains.solana.pool import Pool
from chains.solana.transport import TIMEOUT_S
from chains.solana.types import MAX_COMMITMENTS, Attested, SignedObservation, Trusted
from messages.errors import RelayerError, Unavailable
from messages.outbox import Claim
from messages.packet import compute_commitment

ResultT = TypeVar("ResultT")

KEPT_EVIDENCE = 64
"""Trusted states whose observations are kept, for the proofs of their heads."""
PATIENT_ANSWERS = 6
"""Time-outs that the packets of one span may take together; what was read by then is kept for the next time."""


@dataclass(frozen=True)
class ReaderSettings:
    """How patiently to ask. ``retry_s``: first pause before the same request is tried again; it doubles."""

    timeout_s: float = TIMEOUT_S
    retry_s: float = 0.25


class SolanaReader(Reader[Attested, Trusted, Attested, Attested]):
    """Reader of one vault over several endpoints. Shares the pool with the observer of the same chain."""

    lag_s = 120  # operators speak every few seconds

    def __init__(self, client: SolanaClient, pool: Pool, settings: ReaderSettings | None = None) -> None:
        self._client = client
        self._rules = client.rules
        self._pool = pool
        self._settings = settings or ReaderSettings()
        self._histories = {
            source: VaultHistory(client, source, self._settings.retry_s, self._settings.timeout_s)
            for source in self._client.sources
        }
        self._evidence: dict[Trusted, Attested] = {}
        self._late: dict[str, int] = {}
        """How often in a row a source was too slow with packets: it may hold the others up for less and less."""

    @property
    def sources(self) -> Sequence[str]:
        """Names of the endpoints in the order of configuration."""
        return self._client.sources

    async def close(self) -> None:
        """Close the connections of every endpoint; the next question opens them again."""
        await self._client.close()

    # ------------------------------------------------------------------ the four questions

    async def bootstrap(self, source: str) -> Attested:
        """The first observations of m operators that lie on one history; Unavailable ("unheard") until there are so many."""
        found = await self._find_attested(source, None)
        if found is None:
            raise Unavailable(
                "not enough operators have said the same of this vault yet: they speak every few seconds",
                got=len({signed.operator for signed in self._pool.get_observations()}),
                reason="unheard",
                source=source,
            )
        return replace(found, handovers=self._pool.handovers)

    async def update(self, source: str, trusted: Trusted) -> Attested | None:
        """The newest state that m operators stand for, or None where it is no newer; with what leads to their set where it is not known."""
        self._pool.learn(trusted.handovers)
        found = await self._find_attested(source, replace(trusted, handovers=()))
        return None if found is None else replace(found, handovers=self._pool.get_missing(trusted.handovers))

    async def head(self, source: str, trusted: Trusted) -> tuple[Head, Attested]:
        """Number and head that count, with the observations behind them.

        Raises Unavailable ("evidence_gone") after a restart: observations are said again every few seconds, then newer ones count.
        """
        evidence = self._evidence.get(replace(trusted, handovers=()))
        if evidence is None:
            raise Unavailable(
                "the observations behind this state are not at hand any more: newer ones will come",
                got=trusted.sequence,
                reason="evidence_gone",
                source=source,
            )
        return Head(trusted.sequence, trusted.head), evidence

    async def packets(self, source: str, span: Span) -> Sequence[Claim]:
        """The vault's packets of the span, in order and without a gap, Acks with what they answer."""
        if span.upto_sequence <= span.after_sequence:
            return ()
        return await self._get_packets(source, span.after_sequence, span.upto_sequence, span.from_height)

    async def walk(self, source: str, span: Span) -> AsyncGenerator[Sequence[Claim]]:
        """The packets of a long span, page by page of the vault's list of transactions. See `Reader.walk`."""
        pieces = self._histories[source].go_through(span.after_sequence, span.upto_sequence, span.from_height)
        try:
            async with aclosing(pieces):
                async for claims in pieces:
                    yield claims
        except RelayerError as error:
            error.source = error.source or source
            raise

    def has_more(self, source: str, trusted: Trusted) -> bool:
        """Never: what operators have said by now was looked at whole."""
        del source, trusted
        return False

    async def follow(self, source: str, hint: Callable[[], None]) -> None:
        """Hint when the node tells that the vault's final state has changed: worth an observation; see `Reader.follow`."""
        await self._client.follow(source, hint)

    # ------------------------------------------------------------------ what counts

    async def _find_attested(self, source: str, trusted: Trusted | None) -> Attested | None:
        observations = self._pool.get_observations()
        if not observations:
            return None
        threshold = self._pool.get_threshold()
        # what a former set said tells no time for the next one
        is_same_set = trusted is not None and self._pool.is_in_force(trusted.clock)
        standing = self._evidence.get(trusted) if trusted is not None and is_same_set else None
        found = choose_attested(observations, threshold, (), 0, trusted, standing)
        if found is None:
            found = await self._choose_linked(source, observations, threshold, trusted, standing)
        if found is None:
            return None
        after = verify_attested(self._rules.vault_id, self._pool.sets, found)
        self._evidence.pop(after, None)
        self._evidence[after] = found
        while len(self._evidence) > KEPT_EVIDENCE:
            del self._evidence[next(iter(self._evidence))]
        return found

    async def _choose_linked(
        self,
        source: str,
        observations: Sequence[SignedObservation],
        threshold: int,
        trusted: Trusted | None,
        standing: Attested | None,
    ) -> Attested | None:
        """The best m on one history whose numbers differ, with the packets between them from the source."""
        newer = [s for s in observations if trusted is None or s.observation.sequence > trusted.sequence]
        if len({s.operator for s in newer}) < threshold:
            return None
        state = (await self._client.read_vault(source, "finalized")).state
        numbers = [s.observation.sequence for s in newer]
        # no liar's number leads further than the source itself goes
        upto = min(max(numbers), 0 if state is None else state.outbox_sequence)
        base = max(min(numbers), upto - MAX_COMMITMENTS)
        if upto <= base:
            return None
        claims = await self._get_packets(source, base, upto, 0 if trusted is None else trusted.slot)
        commitments = [compute_commitment(claim.packet) for claim in claims]
        return choose_attested(observations, threshold, commitments, base, trusted, standing)

    async def _get_packets(self, source: str, after: int, upto: int, floor: int) -> tuple[Claim, ...]:
        late = self._late.get(source, 0)
        patience_s = self._settings.timeout_s * max(PATIENT_ANSWERS >> late, 1)
        try:
            async with asyncio.timeout(patience_s):
                claims = await _named(source, self._histories[source].collect(after, upto, floor))
                self._late.pop(source, None)
                return claims
        except TimeoutError as error:
            self._late[source] = late + 1
            raise Unavailable(
                "the endpoint is too slow for the packets; what it gave is kept, and it goes on from there",
                expected=f"within {patience_s:.0f} s",
                reason="timeout",
                source=source,
            ) from error


async def _named(source: str, work: Awaitable[ResultT]) -> ResultT:
    """Put the endpoint's name on whatever error ends the work."""
    try:
        return await work
    except RelayerError as error:
        if not error.source:
            error.source = source
        raise
