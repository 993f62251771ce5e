"""A Solana chain of the testnet's world: a real node behind a `SolanaDoor`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from contracts.solana import client as c
from messages.digests import compute_vault_id
from messages.errors import Rejected
from relayer.demo.calls import Approve, Call
from relayer.demo.site import DEPLOYER, TREASURER, Site, VaultPlan
from relayer.demo.site_solana import encode_solana_call, make_mint, make_token_account
from relayer.testnet.solana_door import SolanaDoor

VAULT_NUMBER = 1


class LiveSolanaSite(Site):
    """See `Site`; ``network`` is the door. Calls block: the world makes them in threads. ``plan``: what the vault was created with."""

    family: ClassVar = "solana"
    settle_s: ClassVar = 0

    def __init__(self, name: str, chain: str, door: SolanaDoor) -> None:
        super().__init__(name, chain)
        self.network: SolanaDoor = door
        self.plan: VaultPlan | None = None

    @property
    def vault(self) -> c.Vault:
        """Program and state account."""
        return c.Vault(self.network.program, Pubkey.from_bytes(self.account))

    def read(self, key: Pubkey) -> bytes | None:
        """Newest data of an account, None where there is none."""
        return self.network.read(key)

    def get_key(self, user: str) -> bytes:
        """See `Site`: an ed25519 seed."""
        return self.network.get_key(user)

    def get_account_of(self, key: bytes) -> bytes:
        """See `Site`: the public key."""
        return bytes(Keypair.from_seed(key).pubkey())

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
        self.asset = bytes(mint)
        vault = c.Vault(door.program, c.find_state(door.program, deployer, VAULT_NUMBER))
        create = c.make_create(
            vault.program,
            deployer,
            VAULT_NUMBER,
            self.chain,
            plan.operators,
            plan.threshold,
            self.get_account(TREASURER),
            plan.delay_s,
            {self.asset: plan.caps},
        )
        done = door.act(key, (create, make_token_account(deployer, vault.state, mint)))
        self.plan = plan
        self.account, self.vault_text = bytes(vault.state), str(vault.state)
        self.vault_id = compute_vault_id(self.chain, self.account)
        self.caip19 = f"{self.chain}/token:{mint}"
        self.start_height = done.slot
        state = self._get_state()
        self.created_at = state.accepted_at
        if state.vault_id != self.vault_id:
            raise Rejected(
                "the vault computes another id for itself",
                got=state.vault_id,
                expected=self.vault_id,
                reason="deployment",
            )

    def _get_state(self) -> c.State:
        return c.decode_state(self.read(self.vault.state) or b"")

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

    def get_outbox_sequence(self) -> int:
        """See `Site`."""
        return self._get_state().outbox_sequence

    def get_tokens(self, account: bytes) -> int:
        """See `Site`."""
        return self.network.get_tokens(self.asset, account)

    def make_table(self) -> dict[str, Any]:
        """See `Site`; endpoints, checkpoint and settings come from the devnet."""
        return {"family": "solana", "vault": self.vault_text, "start_height": self.start_height}
