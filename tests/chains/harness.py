"""What the harnesses of all families share: a simulated network told by its own words, and the answers of families whose headers prove states."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from chains import base
from chains.sim_clock import ManualClock
from messages.bodies import InboxBody, make_inbox_packet
from messages.digests import Certificate, compute_packet_digest, sign_digest
from messages.packet import compute_commitment
from tests.builders import OPERATOR_KEYS

START = 1_800_000_000
THRESHOLD = 3

SHARED_LIES: Mapping[str, Mapping[str, Any]] = {
    "down": {"down": True},
    "forge_head": {"forge_head": True},
    "forge_number": {"forge_sequence": 7},
}


class HeaderHarness(ABC):
    """A family with a light client: whoever lies is an endpoint, and a node hears nothing but its endpoints."""

    clock: ManualClock
    network: Any
    chain: base.Chain[Any, Any, Any, Any]

    certificate_life_s: ClassVar[int] = 1800
    """How long a packet of `certify` may be brought, when a test does not say."""
    lies: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Kind of a lie beside SHARED_LIES and "stall" -> what is set in the lies of the simulated endpoint that tells it."""

    expires: ClassVar[bool] = True
    """Whether a trusted state grows too old to build on."""
    told: ClassVar[frozenset[str]] = frozenset()
    """Lies that must be told before operators speak of the state: afterwards they change nothing of what is believed."""
    is_spoken: ClassVar[bool] = False
    """Whether headers are words of operators instead of answers of endpoints."""

    waiting: ClassVar[base.Outcome] = base.Outcome.PENDING
    """What endpoints tell of a transaction that they were sent and that is in no block."""

    async def hear(self) -> tuple[base.Blame, ...]:
        """What operators say reaches the node; who is to blame for what they say or cannot say."""
        return ()

    async def restart(self, trusted: Any) -> Any:
        """A node that remembers nothing but the trusted state; the state from which it goes on."""
        self.chain = self.make_chain()
        return trusted

    @abstractmethod
    def make_chain(self) -> base.Chain[Any, Any, Any, Any]:
        """A chain object as after a restart: nothing is remembered but the configuration."""

    def get_source(self, index: int) -> str:
        """Name of an endpoint."""
        name: str = self.network.endpoints[index].name
        return name

    def get_liar(self, index: int, kind: str) -> str:
        """Who must be named for a lie: the endpoint, or the operator where the lie is an operator's."""
        del kind
        return self.get_source(index)

    # ---- what happens on the chain

    def now(self) -> int:
        """The time of the chain and of the node."""
        return self.clock()

    def mine(self) -> None:
        """Make a block of what waits."""
        self.network.mine()

    def finalize(self) -> None:
        """Let all that was sent become final."""
        self.network.finalize()

    def certify(self, sequence: int, body: InboxBody, timeout_s: int | None = None) -> Certificate:
        """An inbox packet that as many operators as the vault asks for have signed."""
        life_s = self.certificate_life_s if timeout_s is None else timeout_s
        packet = make_inbox_packet(self.chain.vault_id, sequence, self.now() + life_s, body)
        digest = compute_packet_digest(self.chain.vault_id, 0, sequence, compute_commitment(packet))
        signatures = tuple(sign_digest(key, digest) for key in OPERATOR_KEYS[:THRESHOLD])
        return Certificate(packet, self.chain.vault_id, 0, signatures)

    # ---- lies

    def lie(self, index: int, kind: str) -> None:
        """Make one endpoint misbehave in one way; KeyError where the family knows no such lie."""
        told = self.get_stall() if kind == "stall" else {**SHARED_LIES, **self.lies}[kind]
        lies = vars(self.network.endpoints[index].lies)
        assert told.keys() <= lies.keys(), "the simulated endpoint has no such lie"
        lies.update(told)

    @abstractmethod
    def get_stall(self) -> Mapping[str, Any]:
        """The lie of an endpoint that stands still in the past."""

    def be_honest(self) -> None:
        """No endpoint lies from now on."""
        for endpoint in self.network.endpoints:
            vars(endpoint.lies).update(vars(type(endpoint.lies)()))

    # ---- the pieces of the road

    async def bootstrap(self) -> Any:
        """The state that a fresh node begins with."""
        return (await base.bootstrap(self.chain, self.now()))[1]

    async def get_update(self, trusted: Any, index: int = 0) -> Any:
        """What one source brings to go on with."""
        return await self.chain.reader.update(self.get_source(index), trusted)

    def change_packet(self, claim: Any) -> Any:
        """The same claim with another amount, still well formed."""
        payload = claim.packet.payloads[0]
        value = payload.value[:-1] + bytes([payload.value[-1] ^ 1])
        return replace(claim, packet=replace(claim.packet, payloads=(replace(payload, value=value),)))
