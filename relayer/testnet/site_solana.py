"""A Solana chain of the testnet's world: a real node behind a `SolanaDoor`."""

from __future__ import annotations

from solders.keypair import Keypair

from relayer.demo.calls import Approve, Call
from relayer.demo.site import VaultPlan
from relayer.demo.site_solana import VaultSite, encode_solana_call, make_mint
from relayer.testnet.site import LiveSite
from relayer.testnet.solana_door import SolanaDoor


class LiveSolanaSite(LiveSite, VaultSite):
    """See `Site`; ``network`` is the door. Calls block: the world makes them in threads."""

    def __init__(self, name: str, chain: str, door: SolanaDoor) -> None:
        super().__init__(name, chain)
        self.network: SolanaDoor = door

    def get_payer(self, key: bytes) -> bytes:
        """See `LiveSite`: the public key."""
        return self.get_account_of(key)

    def build(self, deployer: bytes, plan: VaultPlan) -> None:
        """See `LiveSite`."""
        payer = Keypair.from_seed(deployer).pubkey()
        mint, instructions = make_mint(payer, plan.decimals)
        self.network.act(deployer, instructions)
        self.start_height = self.network.act(deployer, self.make_creation(payer, mint, plan)).slot
        self.verify_creation()

    def send(self, user: str, call: Call) -> tuple[str, Call] | None:
        """See `Site`: a node is asked in `finish`. Who deposits signs the transfer itself: nothing is approved here."""
        return None if isinstance(call, Approve) else (user, call)

    def act(self, user: str, call: Call) -> int:
        """See `LiveSite`: compute units."""
        key = self.get_key(user)
        return self.network.act(key, encode_solana_call(call, Keypair.from_seed(key).pubkey(), self)).units
