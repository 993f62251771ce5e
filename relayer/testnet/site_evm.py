"""An Ethereum chain of the testnet's world: a real node behind a `Door`."""

from __future__ import annotations

from typing import ClassVar

from chains.evm.codec import compute_evm_vault_id, encode_call, encode_token_args, encode_vault_args
from contracts.evm import get_artifact
from messages.digests import get_address
from messages.ids import get_evm_account, get_evm_address
from relayer.demo.calls import Call
from relayer.demo.site import TREASURER, VaultPlan
from relayer.demo.site_evm import encode_evm_call
from relayer.testnet.door import Door
from relayer.testnet.site import LiveSite


class LiveEvmSite(LiveSite):
    """See `Site`; ``network`` is the door. Calls block: the world makes them in threads."""

    family: ClassVar = "evm"

    def __init__(self, name: str, chain: str, door: Door) -> None:
        super().__init__(name, chain)
        self.network: Door = door
        self.token = b""

    def get_account_of(self, key: bytes) -> bytes:
        """See `Site`."""
        return get_evm_account(get_address(key))

    def get_payer(self, key: bytes) -> bytes:
        """See `LiveSite`: 20 bytes."""
        return get_address(key)

    def build(self, deployer: bytes, plan: VaultPlan) -> None:
        """See `LiveSite`."""
        door = self.network
        code = get_artifact("erc20").bytecode + encode_token_args("Test Dollar", "USDC", plan.decimals)
        self.token, _ = door.deploy(deployer, code)
        self.asset = get_evm_account(self.token)
        args = encode_vault_args(
            plan.operators, plan.threshold, self.get_account(TREASURER), plan.delay_s, [(self.asset, *plan.caps)]
        )
        vault, receipt = door.deploy(deployer, get_artifact("vault").bytecode + args)
        self.account, self.vault_text = get_evm_account(vault), "0x" + vault.hex()
        self.vault_id = compute_evm_vault_id(door.chain_id, vault)
        self.caip19 = f"{self.chain}/erc20:0x{self.token.hex()}"
        self.start_height = receipt.block_number
        _, self.created_at = door.get_block(hex(receipt.block_number))

    def act(self, user: str, call: Call) -> int:
        """See `LiveSite`."""
        to, data = encode_evm_call(call, self, self.token)
        return self.network.act(self.get_key(user), to, data).gas_used

    def get_outbox_sequence(self) -> int:
        """See `Site`."""
        return int.from_bytes(self.network.call(get_evm_address(self.account), encode_call("outbox_sequence()")), "big")

    def get_tokens(self, account: bytes) -> int:
        """See `Site`."""
        data = encode_call("balanceOf(address)", get_evm_address(account))
        return int.from_bytes(self.network.call(self.token, data), "big")
