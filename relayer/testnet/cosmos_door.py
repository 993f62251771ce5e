"""One Cosmos chain as users see it: signed transactions and reads over one CometBFT RPC, local or public.

What `relayer.testnet.door` is for Ethereum. The calls block; the harness runs them in threads. Keys are derived from a seed and a name; coins
come from a faucet key that the caller hands in. The relayer's own way to this family is `chains.cosmos`: nothing here is used by it.

Source: Cosmos SDK, ADR-020 and `SIGN_MODE_DIRECT`; wasmd's messages.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from math import ceil
from typing import Any, TypeVar

from coincurve import PrivateKey, PublicKey
from cosmpy.protos.cosmos.auth.v1beta1.auth_pb2 import BaseAccount
from cosmpy.protos.cosmos.auth.v1beta1.query_pb2 import QueryAccountRequest, QueryAccountResponse
from cosmpy.protos.cosmos.bank.v1beta1.query_pb2 import QueryBalanceRequest, QueryBalanceResponse
from cosmpy.protos.cosmos.bank.v1beta1.tx_pb2 import MsgSend
from cosmpy.protos.cosmos.base.v1beta1.coin_pb2 import Coin
from cosmpy.protos.cosmos.crypto.secp256k1.keys_pb2 import PubKey
from cosmpy.protos.cosmos.tx.signing.v1beta1.signing_pb2 import SIGN_MODE_DIRECT
from cosmpy.protos.cosmos.tx.v1beta1.service_pb2 import SimulateRequest, SimulateResponse
from cosmpy.protos.cosmos.tx.v1beta1.tx_pb2 import AuthInfo, Fee, ModeInfo, SignDoc, SignerInfo, TxBody, TxRaw
from cosmpy.protos.cosmwasm.wasm.v1.query_pb2 import QuerySmartContractStateRequest, QuerySmartContractStateResponse
from cosmpy.protos.cosmwasm.wasm.v1.tx_pb2 import MsgExecuteContract, MsgInstantiateContract, MsgStoreCode
from Crypto.Hash import RIPEMD160
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from chains.cosmos.address import encode_address
from messages.errors import Rejected, Unavailable
from relayer.testnet.wasmd import DENOM, GAS_PRICE, PREFIX, ask_comet

Answer = TypeVar("Answer", bound=Message)

FUND_AMOUNT = 10_000_000
TX_TIMEOUT_S = 60.0
TX_POLL_S = 0.2
GAS_PERCENT = 140
"""Limit over what a simulation used: state may have changed until the transaction runs."""
EXTRA_GAS = 50_000


def get_key_address(key: bytes) -> bytes:
    """The account's 20-byte address of a secp256k1 key: RIPEMD-160 of the SHA-256 of the compressed public key."""
    return RIPEMD160.new(sha256(_get_public(key)).digest()).digest()


def _get_public(key: bytes) -> bytes:
    return PublicKey.from_valid_secret(key).format()


@dataclass(frozen=True)
class Done:
    """What became of a transaction that succeeded. ``events``: (type, attributes) in order."""

    transaction: bytes
    height: int
    gas_used: int
    events: tuple[tuple[str, Mapping[str, str]], ...]

    def get(self, event: str, attribute: str) -> str:
        """The last value of an attribute; Rejected ("no_event")."""
        for name, attributes in reversed(self.events):
            if name == event and attribute in attributes:
                return attributes[attribute]
        raise Rejected(
            "a transaction shows no such event",
            got=sorted({n for n, _ in self.events}),
            expected=event,
            reason="no_event",
        )


@dataclass(frozen=True)
class Money:
    """What fees are paid in, as text of a decimal number of ``denom`` a unit of gas, and what `fund` gives each account."""

    denom: str = DENOM
    gas_price: str = GAS_PRICE
    fund_amount: int = FUND_AMOUNT


class CosmosDoor:
    """See the module. ``chain_id`` is CometBFT's text."""

    def __init__(
        self, url: str, chain_id: str, faucet_key: bytes, seed: bytes, prefix: str = PREFIX, money: Money | None = None
    ) -> None:
        self.url = url
        self.chain_id = chain_id
        self.prefix = prefix
        self._faucet = faucet_key
        self._seed = seed
        self.money = money or Money()
        self._sequences: dict[bytes, tuple[int, int]] = {}
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ people

    def get_key(self, name: str) -> bytes:
        """A private key that depends on seed, chain and name alone."""
        return sha256(b"optsettle testnet key " + self.chain_id.encode() + self._seed + b" " + name.encode()).digest()

    def get_text(self, address: bytes) -> str:
        """Bech32 of a 20- or 32-byte address."""
        return encode_address(address, self.prefix)

    def fund(self, *addresses: bytes) -> None:
        """Send coins to 20-byte addresses that have little, in one transaction, and wait until they own them."""
        money = self.money
        sender = self.get_text(get_key_address(self._faucet))
        messages = [
            MsgSend(
                from_address=sender,
                to_address=self.get_text(address),
                amount=[Coin(denom=money.denom, amount=str(money.fund_amount))],
            )
            for address in dict.fromkeys(addresses)
            if self.get_coins(address) < money.fund_amount // 2
        ]
        if messages:
            self.act(self._faucet, messages)

    def get_coins(self, address: bytes) -> int:
        """Coins of the fee denomination that an address owns."""
        request = QueryBalanceRequest(address=self.get_text(address), denom=self.money.denom)
        found = self._ask("/cosmos.bank.v1beta1.Query/Balance", request, QueryBalanceResponse())
        return int(found.balance.amount or "0")

    # ------------------------------------------------------------------ transactions

    def act(self, key: bytes, messages: Sequence[Message]) -> Done:
        """Simulate, sign, send and wait until it is in a block.

        Raises:
            Rejected: a message fails, or the node takes the transaction not; with the contract's word ("reverted").
            Unavailable: the node does not answer ("unreachable"), or no block takes it in time ("not_mined").
        """
        body = TxBody(messages=[_pack(message) for message in messages])
        with self._lock:
            try:
                number, sequence = self._get_sequence(key)
                gas = self._simulate(key, body, sequence) * GAS_PERCENT // 100 + EXTRA_GAS
                raw = self._sign(key, body, number, sequence, gas)
                sent = ask_comet(self.url, "broadcast_tx_sync", {"tx": base64.b64encode(raw).decode()})
                if int(sent["code"]) != 0:
                    raise Rejected(f"the node refuses a transaction: {_tell(sent['log'])}", reason="reverted")
            except (Rejected, Unavailable):
                self._sequences.pop(key, None)
                raise
            self._sequences[key] = number, sequence + 1
        return self._wait(sha256(raw).digest())

    def _wait(self, transaction: bytes) -> Done:
        deadline = time.monotonic() + TX_TIMEOUT_S
        while (found := self._find(transaction)) is None:
            if time.monotonic() > deadline:
                raise Unavailable(
                    "a transaction is in no block",
                    got=transaction,
                    expected=f"within {TX_TIMEOUT_S} s",
                    reason="not_mined",
                )
            time.sleep(TX_POLL_S)
        result = found["tx_result"]
        if int(result["code"]) != 0:
            raise Rejected(f"the contract refuses ({_tell(result['log'])})", reason="reverted")
        events = tuple((e["type"], {a["key"]: a.get("value") or "" for a in e["attributes"]}) for e in result["events"])
        return Done(transaction, int(found["height"]), int(result["gas_used"]), events)

    def _find(self, transaction: bytes) -> Any:
        try:
            return ask_comet(self.url, "tx", {"hash": base64.b64encode(transaction).decode()})
        except Rejected as error:
            if "not found" in str(error):
                return None
            raise

    def _get_sequence(self, key: bytes) -> tuple[int, int]:
        """Account number and next sequence number of a key."""
        if key not in self._sequences:
            request = QueryAccountRequest(address=self.get_text(get_key_address(key)))
            account = BaseAccount()
            found = self._ask("/cosmos.auth.v1beta1.Query/Account", request, QueryAccountResponse())
            found.account.Unpack(account)
            self._sequences[key] = account.account_number, account.sequence
        return self._sequences[key]

    def _make_auth(self, key: bytes, sequence: int, gas: int) -> bytes:
        fee = ceil(Decimal(self.money.gas_price) * gas)
        signer = SignerInfo(
            public_key=_pack(PubKey(key=_get_public(key))),
            mode_info=ModeInfo(single=ModeInfo.Single(mode=SIGN_MODE_DIRECT)),
            sequence=sequence,
        )
        coins = [Coin(denom=self.money.denom, amount=str(fee))] if fee else []
        auth = AuthInfo(signer_infos=[signer], fee=Fee(amount=coins, gas_limit=gas))
        return bytes(auth.SerializeToString(deterministic=True))

    def _simulate(self, key: bytes, body: TxBody, sequence: int) -> int:
        raw = TxRaw(
            body_bytes=body.SerializeToString(deterministic=True),
            auth_info_bytes=self._make_auth(key, sequence, 0),
            signatures=[bytes(64)],
        )
        request = SimulateRequest(tx_bytes=raw.SerializeToString(deterministic=True))
        found = self._ask("/cosmos.tx.v1beta1.Service/Simulate", request, SimulateResponse())
        return int(found.gas_info.gas_used)

    def _sign(self, key: bytes, body: TxBody, number: int, sequence: int, gas: int) -> bytes:
        body_bytes, auth = body.SerializeToString(deterministic=True), self._make_auth(key, sequence, gas)
        document = SignDoc(body_bytes=body_bytes, auth_info_bytes=auth, chain_id=self.chain_id, account_number=number)
        signature = PrivateKey(key).sign_recoverable(document.SerializeToString(deterministic=True))[:64]
        raw = TxRaw(body_bytes=body_bytes, auth_info_bytes=auth, signatures=[signature])
        return bytes(raw.SerializeToString(deterministic=True))

    # ------------------------------------------------------------------ contracts

    def store(self, key: bytes, code: bytes) -> int:
        """Store a contract's code: its number."""
        message = MsgStoreCode(sender=self.get_text(get_key_address(key)), wasm_byte_code=code)
        return int(self.act(key, [message]).get("store_code", "code_id"))

    def instantiate(self, key: bytes, code_id: int, message: Mapping[str, Any], label: str) -> tuple[str, Done]:
        """Make a contract that nobody can migrate: its bech32 address, and its transaction."""
        done = self.act(
            key,
            [
                MsgInstantiateContract(
                    sender=self.get_text(get_key_address(key)), code_id=code_id, label=label, msg=_encode(message)
                )
            ],
        )
        return done.get("instantiate", "_contract_address"), done

    def execute(
        self, key: bytes, contract: str, message: Mapping[str, Any], funds: Sequence[tuple[str, int]] = ()
    ) -> Done:
        """Call a contract; Rejected ("reverted") with its word."""
        return self.act(
            key,
            [
                MsgExecuteContract(
                    sender=self.get_text(get_key_address(key)),
                    contract=contract,
                    msg=_encode(message),
                    funds=[Coin(denom=denom, amount=str(amount)) for denom, amount in sorted(funds)],
                )
            ],
        )

    def query(self, contract: str, message: Mapping[str, Any]) -> Any:
        """The answer of a contract to a query, on the newest state."""
        request = QuerySmartContractStateRequest(address=contract, query_data=_encode(message))
        found = self._ask("/cosmwasm.wasm.v1.Query/SmartContractState", request, QuerySmartContractStateResponse())
        return json.loads(found.data)

    # ------------------------------------------------------------------ reads

    def get_header(self, height: int = 0) -> tuple[bytes, int, int]:
        """(hash, height, unix time) of the header at a height, 0 the newest; 32-byte hash."""
        params = {"height": str(height)} if height else {}
        found = ask_comet(self.url, "commit", params)["signed_header"]
        stamp = str(found["header"]["time"])[:19] + "+00:00"
        return (
            bytes.fromhex(found["commit"]["block_id"]["hash"]),
            int(found["header"]["height"]),
            int(datetime.fromisoformat(stamp).timestamp()),
        )

    def _ask(self, path: str, request: Message, answer: Answer) -> Answer:
        """One gRPC question over `abci_query`; Rejected ("reverted") with the chain's words if it answers with an error."""
        data = request.SerializeToString(deterministic=True).hex()
        found = ask_comet(self.url, "abci_query", {"path": path, "data": data})["response"]
        if int(found.get("code") or 0) != 0:
            raise Rejected(f"the chain refuses ({_tell(found.get('log') or '')})", got=path, reason="reverted")
        answer.ParseFromString(base64.b64decode(found.get("value") or ""))
        return answer


def _tell(log: str) -> str:
    """A contract's own words out of what the chain puts around them, else the end of the whole."""
    found = re.search(r"message index: \d+: (.{1,300}?): \w+ wasm contract failed", log)
    return found[1] if found else log[-400:]


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _pack(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message, type_url_prefix="/", deterministic=True)
    return packed
