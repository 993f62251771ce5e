"""The Cosmos family for the contract suite: a simulated chain, the real vault, a funded user and four operators."""

from __future__ import annotations

from typing import Any, ClassVar

from chains import base
from chains.cosmos.address import get_account
from chains.cosmos.sim import ManualClock, SimCosmos
from chains.cosmos.vault_json import make_instantiation
from chains.registry import build_cosmos_sim_chain
from contracts.cosmos import get_wasm
from messages.ids import compute_denom_asset
from messages.outbox import get_start_cursor
from tests.builders import OPERATORS
from tests.chains.harness import START, HeaderHarness

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
    certificate_life_s: ClassVar = 300
    lies: ClassVar = {
        "wrong_chain": {"chain_id": "sim-2"},
        "withhold_all": {"drop_events": True},
        "withhold_some": {"drop_event_every": 2},
        "forge_packet": {"forge_events": True},
        "undone": {"undo_results": True},
        "bad_signature": {"forge_signature": True},
        "too_few": {"too_few": True},
        "future": {"clock_ahead_s": 3600},
        "forged_state": {"forge_state": True},
        "equivocate": {"equivocate": True},
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

    # ---- what happens on the chain

    def deposit(self, amount: int) -> None:
        """One outbox packet: Deposited(user, asset, amount), in a block, the state after it not yet under a header."""
        message = {"deposit": {"asset": self.asset.hex(), "amount": str(amount), "beneficiary": self.user.hex()}}
        self.network.transact(self.user_key, self.vault, message, [(DENOM, amount)])
        self.network.mine()

    def reorg(self) -> None:
        """A committed block of this family is never replaced."""

    # ---- lies

    def get_stall(self) -> dict[str, Any]:
        return {"stall_height": 3}
