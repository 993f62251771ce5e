"""A Solana chain of the testnet's world: a real node behind a `SolanaDoor`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from solders.keypair import Keypair

from messages.errors import Rejected
from relayer.demo.calls import Approve, Call
from relayer.demo.site import DEPLOYER, TREASURER, VaultPlan
from relayer.demo.site_solana import VaultSite, encode_solana_call, make_mint
from relayer.testnet.solana_door import SolanaDoor


class LiveSolanaSite(VaultSite):
    """See `Site`; ``network`` is the door. Calls block: the world makes them in threads."""

    settle_s: ClassVar = 0

    def __init__(self, name: str, chain: str, door: SolanaDoor) -> None:
        super().__init__(name, chain)
        self.network: SolanaDoor = door

    def get_key(self, user: str) -> bytes:
        """See `Site`: an ed25519 seed."""
        return self.network.get_key(user)

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
        door.fund(*(self.get_account_of(key) for key in keys))
        key = door.get_key(DEPLOYER)
        deployer = Keypair.from_seed(key).pubkey()
        mint, instructions = make_mint(deployer, plan.decimals)
        door.act(key, instructions)
        self.start_height = door.act(key, self.make_creation(deployer, mint, plan)).slot
        self.verify_creation()

    def send(self, user: str, call: Call) -> tuple[str, Call] | None:
        """See `Site`: a node is asked in `finish`. Who deposits signs the transfer itself: nothing is approved here."""
        return None if isinstance(call, Approve) else (user, call)

    def finish(self, sent: tuple[str, Call]) -> int:
        """See `Site`: sends and waits until it is confirmed; compute units."""
        user, call = sent
        key = self.get_key(user)
        try:
            instructions = encode_solana_call(call, Keypair.from_seed(key).pubkey(), self)
            return self.network.act(key, instructions).units
        except Rejected as error:
            error.source = error.source or f"{user} on chain {self.name}"
            raise

    def make_table(self) -> dict[str, Any]:
        """See `Site`; endpoints, checkpoint and settings come from the devnet."""
        return {"family": "solana", "vault": self.vault_text, "start_height": self.start_height}
