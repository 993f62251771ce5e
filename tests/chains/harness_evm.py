"""The Ethereum family for the contract suite: a simulated network, the real vault, a funded user and four operators."""

from __future__ import annotations

from typing import Any, ClassVar

from chains import base
from chains.evm.codec import (
    encode_approve,
    encode_deposit,
    encode_mint,
    encode_token_args,
    encode_vault_args,
)
from chains.evm.sim import ManualClock, SimNetwork
from chains.registry import build_sim_chain
from contracts.evm import get_artifact
from messages.digests import get_address
from messages.ids import get_evm_account
from messages.outbox import get_start_cursor
from tests.builders import OPERATORS
from tests.chains.harness import START, HeaderHarness

CHAIN_ID = 31337
CAP = 10**12


class EvmHarness(HeaderHarness):
    """See the head of `tests.chains.test_every_family`."""

    # how the family spells what the suite wants to see refused
    update_reasons: ClassVar = {
        "bad_signature": "bad_signature",
        "too_few": "participation",
        "future": "future",
        "forged_state": "bad_finality",
    }
    lies: ClassVar = {
        "wrong_chain": {"chain_id": 1},
        "withhold_all": {"drop_logs": True},
        "withhold_some": {"drop_log_every": 2},
        "forge_packet": {"forge_logs": True},
        "undone": {"removed_logs": True},
        "bad_signature": {"forge_signature": True},
        "too_few": {"participation": 341},
        "future": {"clock_ahead_s": 3600},
        "forged_state": {"forge_finality": True},
        "equivocate": {"equivocate": True},
    }

    def __init__(self, n_endpoints: int = 2, **network: Any) -> None:
        self.clock = ManualClock(START)
        self.network = net = SimNetwork(CHAIN_ID, self.clock, n_endpoints, **network)
        self.user_key = net.make_key("user")
        self.submit_key = net.make_key("submitter")
        net.mine()
        self.token = net.deploy(get_artifact("erc20").bytecode, encode_token_args("USD Coin", "USDC", 6), self.user_key)
        self.asset = get_evm_account(self.token)
        self.user = get_evm_account(get_address(self.user_key))
        args = encode_vault_args(OPERATORS, 3, self.user, 86_400, [(self.asset, CAP, CAP, CAP)])
        self.vault = net.deploy(get_artifact("vault").bytecode, args, self.user_key)
        net.transact(self.user_key, self.token, encode_mint(get_address(self.user_key), CAP))
        net.transact(self.user_key, self.token, encode_approve(self.vault, 2**256 - 1))
        net.finalize()
        self.move_checkpoint()
        self.chain = self.make_chain()
        self.start = get_start_cursor(self.chain.vault_id)

    def move_checkpoint(self) -> None:
        self.checkpoint = self.network.get_checkpoint()

    def make_chain(self, **changes: Any) -> base.Chain[Any, Any, Any, Any]:
        """A chain object as after a restart: nothing is remembered but the configuration."""
        return build_sim_chain(self.network, self.vault, self.submit_key, checkpoint=self.checkpoint, **changes)

    # ---- what happens on the chain

    def deposit(self, amount: int) -> None:
        """One outbox packet: Deposited(user, asset, amount), in a block, not yet final."""
        self.network.transact(self.user_key, self.vault, encode_deposit(self.asset, amount, self.user))
        self.network.mine()

    def reorg(self) -> None:
        """The newest block is replaced by one without its transactions; they wait again."""
        self.network.reorg(1)

    # ---- lies

    def get_stall(self) -> dict[str, Any]:
        return {"stall_slot": self.network.beacon.blocks[0].slot + 1}
