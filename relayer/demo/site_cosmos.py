"""A simulated Cosmos chain of the demo's world: a CosmWasm vault and a cw20 token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from cosmpy.protos.cosmwasm.wasm.v1.tx_pb2 import MsgInstantiateContract, MsgStoreCode
from google.protobuf.message import Message

from chains.cosmos.address import decode_address, encode_address, get_account
from chains.cosmos.sim import SimCosmos
from chains.cosmos.sim_chain import TxResult, pack
from chains.cosmos.vault_json import encode_json, make_instantiation
from chains.cosmos.verifier import CosmosSettings
from chains.registry import SIM_PREFIX, make_cosmos_settings
from contracts.cosmos import get_wasm
from messages.bodies import SeriesDefinition
from messages.canonical import decode_canonical
from messages.digests import compute_vault_id
from relayer.demo.calls import (
    Approve,
    Call,
    Claim,
    Deposit,
    Link,
    ListSeries,
    Mint,
    Offer,
    RequestWithdrawal,
    Take,
)
from relayer.demo.site import DEPLOYER, TREASURER, Site, VaultPlan

BLOCK_S = 5
CALL_GAS = 1_500_000
DEPLOY_GAS = 20_000_000
GAS_PRICE = "0.025"

Funds = Sequence[tuple[str, int]]
"""Coins that go with a call: denom and amount."""


class CosmosPlace(Protocol):
    """What a call needs to know of its site."""

    @property
    def vault_text(self) -> str:
        """Bech32 address of the vault."""

    @property
    def token_text(self) -> str:
        """Bech32 address of the cw20 token."""

    @property
    def asset(self) -> bytes:
        """The token's id at the vault, 32 bytes."""

    def get_text(self, account: bytes) -> str:
        """Bech32 address of an account (32 bytes)."""


def encode_cosmos_call(call: Call, site: CosmosPlace) -> tuple[str, dict[str, Any], Funds]:
    """Contract (bech32), message and coins of a call (contracts/cosmos/README.md)."""
    match call:
        case Mint(receiver, amount):
            return site.token_text, {"mint": {"recipient": site.get_text(receiver), "amount": str(amount)}}, ()
        case Approve(amount):
            allowance = {"spender": site.vault_text, "amount": str(amount)}
            return site.token_text, {"increase_allowance": allowance}, ()
    return site.vault_text, _encode_vault_call(call, site.asset.hex()), ()


def _encode_vault_call(
    call: Deposit | Link | ListSeries | Offer | Take | RequestWithdrawal | Claim, asset: str
) -> dict[str, Any]:
    match call:
        case Deposit(amount, beneficiary):
            return {"deposit": {"asset": asset, "amount": str(amount), "beneficiary": beneficiary.hex()}}
        case Link(portfolio, valid_until, signature):
            link = {"portfolio": portfolio.hex(), "valid_until": valid_until, "signature": signature.hex()}
            return {"link": link}
        case ListSeries(definition):
            return {"list_series": {"definition": _encode_definition(definition)}}
        case Offer(side, series, quantity, premium, valid_until):
            offer = {
                "side": side,
                "series": series.hex(),
                "asset": asset,
                "quantity": str(quantity),
                "premium_per_contract": str(premium),
                "valid_until": valid_until,
            }
            return {"offer": offer}
        case Take(number, quantity, nonce, for_house):
            take = {"offer": number, "quantity": str(quantity), "nonce": nonce, "for_house": for_house}
            return {"take": take}
        case RequestWithdrawal(amount, for_house):
            return {"request_withdrawal": {"asset": asset, "amount": str(amount), "for_house": for_house}}
        case Claim(account):
            return {"claim": {"account": account.hex(), "asset": asset}}


def _encode_definition(definition: SeriesDefinition) -> dict[str, Any]:
    """Names and classes in hex, 256-bit amounts as decimal strings, everything else as numbers."""
    return {
        name: value.hex()
        if isinstance(value, bytes)
        else (str(value) if name in {"strike_e8", "multiplier_e8"} else value)
        for name, value in asdict(definition).items()
    }


class CosmosSite(Site):
    """See `Site`; ``network`` is the simulated chain."""

    family: ClassVar = "cosmos"
    settle_s: ClassVar = 2 * BLOCK_S

    def __init__(self, name: str, chain_name: str, clock: Callable[[], float], endpoints: int) -> None:
        super().__init__(name, f"cosmos:{chain_name}")
        self.network: SimCosmos = SimCosmos(chain_name, clock, n_endpoints=endpoints, block_s=BLOCK_S)
        self.start_height = self.network.height
        self.token_text = ""

    def get_key(self, user: str) -> bytes:
        """See `Site`."""
        return self.network.make_key(user)

    def get_account_of(self, key: bytes) -> bytes:
        """See `Site`."""
        return get_account(self.network.get_address_bytes(key))

    def get_text(self, account: bytes) -> str:
        """Bech32 address of an account (32 bytes)."""
        return encode_address(account if any(account[:12]) else account[12:], self.network.prefix)

    async def create(
        self,
        plan: VaultPlan,
        people: Sequence[str],
        gas_keys: Sequence[bytes],
        pass_time: Callable[[float], Awaitable[None]],
    ) -> None:
        """See `Site`."""
        for user in (DEPLOYER, TREASURER, *people):
            self.get_key(user)
        for key in gas_keys:
            self.network.mint(self.network.denom, self.network.get_address_bytes(key), 10**12)
        await pass_time(self.settle_s)
        token: dict[str, Any] = {
            "name": "Demo Dollar",
            "symbol": "USDC",
            "decimals": plan.decimals,
            "initial_balances": [],
            "mint": {"minter": self.network.get_address(self.get_key(DEPLOYER))},
        }
        self.token_text = await self._deploy("cw20", token, pass_time)
        self.asset = get_account(decode_address(self.token_text, self.network.prefix))
        vault = make_instantiation(
            plan.operators, plan.threshold, self.get_account(TREASURER), plan.delay_s, [(self.asset, *plan.caps)]
        )
        self.vault_text = await self._deploy("vault", vault, pass_time)
        self.account = get_account(decode_address(self.vault_text, self.network.prefix))
        self.vault_id = compute_vault_id(self.chain, self.account)
        self.caip19 = f"{self.chain}/cw20:{self.token_text}"
        told = self.network.query(self.vault_text, {"cursors": {}})
        self.created_at = int(told["accepted_at"])

    async def _deploy(self, name: str, message: dict[str, Any], pass_time: Callable[[float], Awaitable[None]]) -> str:
        """Upload and instantiate a built contract without an admin; its bech32 address."""
        key = self.get_key(DEPLOYER)
        sender = self.network.get_address(key)
        upload = MsgStoreCode(sender=sender, wasm_byte_code=pack(get_wasm(name)))
        stored = await self._include(key, upload, pass_time)
        instantiate = MsgInstantiateContract(
            sender=sender, code_id=int(_get(stored, "store_code", "code_id")), label=name, msg=encode_json(message)
        )
        return _get(await self._include(key, instantiate, pass_time), "instantiate", "_contract_address")

    async def _include(self, key: bytes, message: Message, pass_time: Callable[[float], Awaitable[None]]) -> TxResult:
        sent = self.network.send(key, message, gas=DEPLOY_GAS)
        await pass_time(self.settle_s)
        result = self.network.get_result(sent)
        if result is None or result.code:
            raise RuntimeError(f"a contract was not created on {self.name}: {result and result.log}")
        return result

    def send(self, user: str, call: Call) -> tuple[str, Call, bytes]:
        """See `Site`."""
        contract, message, funds = encode_cosmos_call(call, self)
        sent = self.network.transact(self.get_key(user), contract, message, funds, gas=CALL_GAS)
        return user, call, sent

    def finish(self, sent: tuple[str, Call, bytes]) -> int:
        """See `Site`."""
        user, call, transaction = sent
        result = self.network.get_result(transaction)
        if result is None:
            raise RuntimeError(f"a transaction of {user} on {self.name} is in no block")
        self.verify_done(user, call, result.code == 0, result.log)
        return result.gas_used

    def spoil_endpoint(self, kind: str) -> str:
        """See `Site`."""
        endpoint = self.network.endpoints[0]
        if kind == "forge":
            endpoint.lies.forge_events = True
            return f"{endpoint.name} changes one byte of each packet"
        endpoint.lies.drop_event_every = 2
        return f"{endpoint.name} withholds every second packet"

    def tick(self) -> None:
        """See `Site`."""
        self.network.tick()

    def get_outbox_sequence(self) -> int:
        """See `Site`."""
        return int(self.network.query(self.vault_text, {"cursors": {}})["outbox_sequence"])

    def get_tokens(self, account: bytes) -> int:
        """See `Site`."""
        return int(self.network.query(self.token_text, {"balance": {"address": self.get_text(account)}})["balance"])

    def make_table(self) -> dict[str, Any]:
        """See `Site`."""
        checkpoint, height = self.network.get_checkpoint()
        settings = make_cosmos_settings(CosmosSettings(checkpoint_height=height, prefix=self.network.prefix))
        return {
            "family": "cosmos",
            "vault": self.vault_text,
            "checkpoint": "0x" + checkpoint.hex(),
            "start_height": self.start_height,
            "gas_price": GAS_PRICE + self.network.denom,
            "endpoints": [{"name": e.name, "rpc": SIM_PREFIX + e.name} for e in self.network.endpoints],
            "settings": decode_canonical(settings.encode()),
        }


def _get(result: TxResult, event: str, attribute: str) -> str:
    return next(v for kind, pairs in result.events if kind == event for name, v in pairs if name == attribute)
