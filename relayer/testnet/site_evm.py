"""An Ethereum chain of the testnet's world: a real node behind a `Door`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from chains.evm.codec import compute_evm_vault_id, encode_call, encode_token_args, encode_vault_args
from contracts.evm import get_artifact
from messages.digests import get_address
from messages.errors import Rejected
from messages.ids import get_evm_account, get_evm_address
from relayer.demo.calls import Call
from relayer.demo.site import DEPLOYER, TREASURER, Site, VaultPlan
from relayer.demo.site_evm import encode_evm_call
from relayer.testnet.door import Door


class LiveEvmSite(Site):
    """See `Site`; ``network`` is the door. Calls block: the world makes them in threads."""

    family: ClassVar = "evm"
    settle_s: ClassVar = 0

    def __init__(self, name: str, chain: str, door: Door) -> None:
        super().__init__(name, chain)
        self.network: Door = door
        self.token = b""

    def get_key(self, user: str) -> bytes:
        """See `Site`."""
        return self.network.get_key(user)

    def get_account_of(self, key: bytes) -> bytes:
        """See `Site`."""
        return get_evm_account(get_address(key))

    async def create(
        self,
        plan: VaultPlan,
        people: Sequence[str],
        gas_keys: Sequence[bytes],
        pass_time: Callable[[float], Awaitable[None]],  # noqa: ARG002  time passes by itself here
    ) -> None:
        """See `Site`."""
        await asyncio.to_thread(self._create, plan, people, gas_keys)

    def _create(self, plan: VaultPlan, people: Sequence[str], gas_keys: Sequence[bytes]) -> None:
        door = self.network
        keys = [*(door.get_key(name) for name in (DEPLOYER, TREASURER, *people)), *gas_keys]
        door.fund(*(get_address(key) for key in keys))
        deployer = door.get_key(DEPLOYER)
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

    def send(self, user: str, call: Call) -> tuple[str, Call]:
        """See `Site`: a node is asked in `finish`."""
        return user, call

    def finish(self, sent: tuple[str, Call]) -> int:
        """See `Site`: sends and waits until it is mined."""
        user, call = sent
        to, data = encode_evm_call(call, self, self.token)
        try:
            return self.network.act(self.get_key(user), to, data).gas_used
        except Rejected as error:
            error.source = error.source or f"{user} on chain {self.name}"
            raise

    def get_outbox_sequence(self) -> int:
        """See `Site`."""
        return int.from_bytes(self.network.call(get_evm_address(self.account), encode_call("outbox_sequence()")), "big")

    def get_tokens(self, account: bytes) -> int:
        """See `Site`."""
        data = encode_call("balanceOf(address)", get_evm_address(account))
        return int.from_bytes(self.network.call(self.token, data), "big")

    def make_table(self) -> dict[str, Any]:
        """See `Site`; endpoints, checkpoint and settings are of the process that serves them (`operators`)."""
        return {"family": "evm", "vault": self.vault_text, "start_height": self.start_height}
