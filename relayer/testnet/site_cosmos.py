"""A Cosmos chain of the testnet's world: real nodes behind a `CosmosDoor`."""

from __future__ import annotations

from typing import Any, ClassVar

from chains.cosmos.address import decode_address, get_account
from contracts.cosmos import get_wasm
from messages.digests import compute_vault_id
from messages.errors import Rejected
from relayer.demo.calls import Call
from relayer.demo.site import TREASURER, VaultPlan
from relayer.demo.site_cosmos import encode_cosmos_call
from relayer.testnet.cosmos_door import CosmosDoor, get_key_address
from relayer.testnet.site import LiveSite


class LiveCosmosSite(LiveSite):
    """See `Site`; ``network`` is the door. Calls block: the world makes them in threads."""

    family: ClassVar = "cosmos"

    def __init__(self, name: str, chain: str, door: CosmosDoor) -> None:
        super().__init__(name, chain)
        self.network: CosmosDoor = door
        self.token_text = ""

    def get_account_of(self, key: bytes) -> bytes:
        """See `Site`."""
        return get_account(get_key_address(key))

    def get_text(self, account: bytes) -> str:
        """Bech32 address of an account (32 bytes): upper 12 bytes of zero mean a key's address of 20 bytes."""
        return self.network.get_text(account if any(account[:12]) else account[12:])

    def get_payer(self, key: bytes) -> bytes:
        """See `LiveSite`: 20 bytes."""
        return get_key_address(key)

    def build(self, deployer: bytes, plan: VaultPlan) -> None:
        """See `LiveSite`."""
        door = self.network
        minter = door.get_text(get_key_address(deployer))
        token: dict[str, Any] = {
            "name": "Test Dollar",
            "symbol": "USDC",
            "decimals": plan.decimals,
            "initial_balances": [],
            "mint": {"minter": minter},
        }
        self.token_text, _ = door.instantiate(deployer, door.store(deployer, get_wasm("cw20")), token, "test dollar")
        self.asset = get_account(decode_address(self.token_text, door.prefix))
        per_packet, per_hour, per_day = (str(cap) for cap in plan.caps)
        vault: dict[str, Any] = {
            "operators": [operator.hex() for operator in plan.operators],
            "threshold": plan.threshold,
            "treasurer": self.get_account(TREASURER).hex(),
            "delay": plan.delay_s,
            "caps": [{"asset": self.asset.hex(), "per_packet": per_packet, "per_hour": per_hour, "per_day": per_day}],
        }
        code = door.store(deployer, get_wasm("vault"))
        self.vault_text, done = door.instantiate(deployer, code, vault, "vault")
        self.account = get_account(decode_address(self.vault_text, door.prefix))
        self.vault_id = compute_vault_id(self.chain, self.account)
        self.caip19 = f"{self.chain}/cw20:{self.token_text}"
        self.start_height = done.height
        self.created_at = door.get_header(done.height)[2]
        told = door.query(self.vault_text, {"vault": {}})
        if told["vault_id"] != self.vault_id.hex():
            raise Rejected(
                "the vault computes another id for itself",
                got=told["vault_id"],
                expected=self.vault_id,
                reason="deployment",
            )

    def act(self, user: str, call: Call) -> int:
        """See `LiveSite`."""
        contract, message, funds = encode_cosmos_call(call, self)
        return self.network.execute(self.get_key(user), contract, message, funds).gas_used

    def get_outbox_sequence(self) -> int:
        """See `Site`."""
        return int(self.network.query(self.vault_text, {"cursors": {}})["outbox_sequence"])

    def get_tokens(self, account: bytes) -> int:
        """See `Site`."""
        found = self.network.query(self.token_text, {"balance": {"address": self.get_text(account)}})
        return int(found["balance"])

    def make_table(self) -> dict[str, Any]:
        """See `LiveSite`; operators pay what the door pays."""
        return {
            **super().make_table(),
            "gas_price": self.network.money.gas_price + self.network.money.denom,
        }
