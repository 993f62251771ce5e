"""One chain of a world, as the story uses it: people's keys, a vault with a token, calls, and what an operator must be told.

The story, the tables and the operators' files know this class and no family. A family is a subclass for simulated networks here, and one
for real nodes in `relayer.testnet`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from messages.errors import Rejected
from messages.ids import HOUSE, INSURANCE
from relayer.demo.calls import Call

TREASURER = "treasurer"
DEPLOYER = "deployer"


@dataclass(frozen=True)
class VaultPlan:
    """What a vault is created with; caps of the site's one asset: per packet, hour, day, in base units."""

    operators: tuple[bytes, ...]
    threshold: int
    delay_s: int
    caps: tuple[int, int, int]
    decimals: int


class Site(ABC):
    """See the module. ``chain`` is CAIP-2; ``account`` (the vault's), ``vault_id``, ``asset`` are 32 bytes, set by `create`."""

    family: ClassVar[str]
    network: Any
    """The simulated network, or the door to a real node."""
    settle_s: ClassVar[int]
    """Seconds after which a transaction that was sent is in a block."""

    def __init__(self, name: str, chain: str) -> None:
        self.name = name
        self.chain = chain
        self.account = b""
        self.vault_text = ""
        """The vault as people of this family write it."""
        self.vault_id = b""
        self.asset = b""
        self.caip19 = ""
        self.start_height = 0
        self.created_at = 0

    # ------------------------------------------------------------------ people

    @abstractmethod
    def get_key(self, user: str) -> bytes:
        """A user's private key here, 32 bytes; its account can pay fees once `create` is done."""

    @abstractmethod
    def get_account_of(self, key: bytes) -> bytes:
        """The account (32 bytes) of a private key on this chain."""

    def get_account(self, user: str) -> bytes:
        """A user's account at the vault, or HOUSE / INSURANCE by those names."""
        if user in {"HOUSE", "INSURANCE"}:
            return HOUSE if user == "HOUSE" else INSURANCE
        return self.get_account_of(self.get_key(user))

    # ------------------------------------------------------------------ building

    @abstractmethod
    async def create(
        self,
        plan: VaultPlan,
        people: Sequence[str],
        gas_keys: Sequence[bytes],
        pass_time: Callable[[float], Awaitable[None]],
    ) -> None:
        """Fund the wallets of people and gas keys, create token and vault, and set the attributes."""

    # ------------------------------------------------------------------ calls

    @abstractmethod
    def send(self, user: str, call: Call) -> Any:
        """Send a signed transaction; what `finish` wants to see later, or None where the family needs none for this call."""

    @abstractmethod
    def finish(self, sent: Any) -> int:
        """Look what became of it, `settle_s` later: gas used; Rejected ("reverted") with the vault's word."""

    def verify_done(self, user: str, call: Call, is_done: bool, word: str) -> None:
        """Refuse a call that reverted, with the vault's word; Rejected ("reverted")."""
        if not is_done:
            raise Rejected(
                f"{user} on chain {self.name}: the vault refuses ({word})", got=type(call).__name__, reason="reverted"
            )

    def tick(self) -> None:  # noqa: B027  real chains make their blocks themselves
        """Make the blocks that are due."""

    # ------------------------------------------------------------------ what goes wrong

    def spoil_endpoint(self, kind: str) -> str:
        """Let the first endpoint lie from now on, "withhold" or "forge" what it tells: its name and what it does, in words."""
        raise NotImplementedError(f"the endpoints of {self.name} are not ours: nothing to {kind}")

    def forge_statement(self, operator_key: bytes) -> bytes | None:
        """What a lying operator publishes: another head for the vault's newest final packet, signed with its key (32 bytes).

        None where headers prove states, so that no operator is believed about any.
        """
        del operator_key
        return None

    def reorg(self) -> int | None:
        """Replace the newest unfinalized block: its height, or None where blocks are final at once."""
        return None

    # ------------------------------------------------------------------ what is there

    @abstractmethod
    def get_outbox_sequence(self) -> int:
        """Number of the newest outbox packet, whatever is proven of it."""

    @abstractmethod
    def get_tokens(self, account: bytes) -> int:
        """Tokens of the site's asset that an account (32 bytes) owns outside the vault's books, in base units."""

    # ------------------------------------------------------------------ operators

    @abstractmethod
    def make_table(self) -> dict[str, Any]:
        """The chain's table for an operator's configuration, without submit key; the checkpoint is what is final now."""
