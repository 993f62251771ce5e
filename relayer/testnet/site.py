"""What the sites of all families have in common on a testnet: a door to real nodes, which are asked when a call is finished."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from messages.errors import Rejected
from relayer.demo.calls import Call
from relayer.demo.site import DEPLOYER, TREASURER, Site, VaultPlan


class LiveSite(Site):
    """See `Site`; ``network`` is the door. Calls block: the world makes them in threads."""

    settle_s: ClassVar = 0

    @abstractmethod
    def get_payer(self, key: bytes) -> bytes:
        """Whom the door funds for a private key: the address that pays fees, as the door takes it."""

    @abstractmethod
    def build(self, deployer: bytes, plan: VaultPlan) -> None:
        """Create token and vault with the key of who deploys, and set the attributes; blocks."""

    @abstractmethod
    def act(self, user: str, call: Call) -> int:
        """Send a user's call and wait until it is in a block: gas used; Rejected with the vault's word."""

    def get_key(self, user: str) -> bytes:
        """See `Site`."""
        key: bytes = self.network.get_key(user)
        return key

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
        keys = [*(self.get_key(name) for name in (DEPLOYER, TREASURER, *people)), *gas_keys]
        self.network.fund(*(self.get_payer(key) for key in keys))
        self.build(self.get_key(DEPLOYER), plan)

    def send(self, user: str, call: Call) -> tuple[str, Call] | None:
        """See `Site`: a node is asked in `finish`."""
        return user, call

    def finish(self, sent: tuple[str, Call]) -> int:
        """See `Site`: sends and waits."""
        user, call = sent
        try:
            return self.act(user, call)
        except Rejected as error:
            error.source = error.source or f"{user} on chain {self.name}"
            raise

    def make_table(self) -> dict[str, Any]:
        """See `Site`; endpoints, checkpoint and settings come from the devnet."""
        return {"family": self.family, "vault": self.vault_text, "start_height": self.start_height}
