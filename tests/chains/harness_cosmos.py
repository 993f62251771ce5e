"""The Cosmos family for the contract suite: a simulated chain, the real vault, a funded user and four operators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from chains import base
from chains.cosmos.address import get_account
from chains.cosmos.sim import ManualClock, SimCosmos
from chains.cosmos.sim_rpc import Lies
from chains.cosmos.vault_json import make_instantiation
from chains.registry import build_cosmos_sim_chain
from contracts.cosmos import get_wasm
from messages.bodies import InboxBody, make_inbox_packet
from messages.digests import Certificate, compute_packet_digest, sign_digest
from messages.ids import compute_denom_asset
from messages.outbox import get_start_cursor
from messages.packet import compute_commitment
from tests.builders import OPERATOR_KEYS, OPERATORS
from tests.chains.harness import HeaderHarness

START = 1_800_000_000
CHAIN_ID = "sim-1"
DENOM = "uusd"
CAP = 10**12


class CosmosHarness(HeaderHarness):
    """See the head of `tests.chains.test_every_family`."""

    # how the family spells what the suite wants to see refused
    update_reasons: ClassVar = {
        "bad_signature": "bad_signature",
        "too_few": "too_few",
        "future": "future",
        "forged_state": "wrong_commit",
    }

    def __init__(self, n_endpoints: int = 2, **network: Any) -> None:
        self.clock = ManualClock(START)
        self.network = net = SimCosmos(CHAIN_ID, self.clock, n_endpoints, **network)
        self.user_key = net.make_key("user")
        self.submit_key = net.make_key("submitter")
        net.mint(DENOM, net.get_address_bytes(self.user_key), CAP)
        net.mine()
        self.asset = compute_denom_asset(DENOM)
        self.user = get_account(net.get_address_bytes(self.user_key))
        message = make_instantiation(OPERATORS, 3, self.user, 86_400, [(self.asset, CAP, CAP, CAP)])
        self.vault = net.deploy(get_wasm("vault"), message, self.user_key)
        net.transact(self.user_key, self.vault, {"register_denom": {"denom": DENOM}})
        net.finalize()
        self.move_checkpoint()
        self.chain = self.make_chain()
        self.start = get_start_cursor(self.chain.vault_id)

    def move_checkpoint(self) -> None:
        self.checkpoint = self.network.get_checkpoint()

    def make_chain(self, **changes: Any) -> base.Chain[Any, Any, Any, Any]:
        """A chain object as after a restart: nothing is remembered but the configuration."""
        return build_cosmos_sim_chain(self.network, self.vault, self.submit_key, checkpoint=self.checkpoint, **changes)

    def now(self) -> int:
        return self.clock()

    # ---- what happens on the chain

    def deposit(self, amount: int) -> None:
        """One outbox packet: Deposited(user, asset, amount), in a block, the state after it not yet under a header."""
        message = {"deposit": {"asset": self.asset.hex(), "amount": str(amount), "beneficiary": self.user.hex()}}
        self.network.transact(self.user_key, self.vault, message, [(DENOM, amount)])
        self.network.mine()

    def mine(self) -> None:
        self.network.mine()

    def finalize(self) -> None:
        self.network.finalize()

    def reorg(self) -> None:
        """A committed block of this family is never replaced."""

    def certify(self, sequence: int, body: InboxBody, timeout_s: int = 300) -> Certificate:
        packet = make_inbox_packet(self.chain.vault_id, sequence, self.now() + timeout_s, body)
        digest = compute_packet_digest(self.chain.vault_id, 0, sequence, compute_commitment(packet))
        signatures = tuple(sign_digest(key, digest) for key in OPERATOR_KEYS[:3])
        return Certificate(packet, self.chain.vault_id, 0, signatures)

    # ---- lies

    def lie(self, index: int, kind: str) -> None:
        """Make one endpoint misbehave in one way."""
        lies = self.network.endpoints[index].lies
        match kind:
            case "down":
                lies.down = True
            case "wrong_chain":
                lies.chain_id = "sim-2"
            case "stall":
                lies.stall_height = 3
            case "withhold_all":
                lies.drop_events = True
            case "withhold_some":
                lies.drop_event_every = 2
            case "forge_packet":
                lies.forge_events = True
            case "undone":
                lies.undo_results = True
            case "forge_head":
                lies.forge_head = True
            case "forge_number":
                lies.forge_sequence = 7
            case "bad_signature":
                lies.forge_signature = True
            case "too_few":
                lies.too_few = True
            case "future":
                lies.clock_ahead_s = 3600
            case "forged_state":
                lies.forge_state = True
            case "equivocate":
                lies.equivocate = True
            case _:
                raise ValueError(kind)

    def be_honest(self) -> None:
        for endpoint in self.network.endpoints:
            vars(endpoint.lies).update(vars(Lies()))

    def get_source(self, index: int) -> str:
        return self.network.endpoints[index].name

    # ---- the pieces of the road

    async def bootstrap(self) -> Any:
        return (await base.bootstrap(self.chain, self.now()))[1]

    async def get_update(self, trusted: Any, index: int = 0) -> Any:
        return await self.chain.reader.update(self.get_source(index), trusted)

    def change_packet(self, claim: Any) -> Any:
        """The same claim with another amount, still well formed."""
        payload = claim.packet.payloads[0]
        value = payload.value[:-1] + bytes([payload.value[-1] ^ 1])
        return replace(claim, packet=replace(claim.packet, payloads=(replace(payload, value=value),)))
