"""Builds, signs, sends and follows the transaction that carries a certified packet to a CosmWasm vault. Proves nothing.

Keys, transactions and signatures (SIGN_MODE_DIRECT) are cosmpy's, in a thread: its elliptic curve is written in Python. Everything else goes over
the same transport as the reader's questions. `prepare` depends only on the certificate, on what was stored before (`previous`) and on what the
endpoints say now, so it gives the right answer after any restart. How this family differs from the other:

* A pool holds one transaction for each number (account sequence) and takes no other in its place, whatever it pays. So a stored transaction is
  sent again as long as it may still be included; each carries the last height for that, a few blocks away, and only after it a new one with a
  higher fee takes its number.
* Simulation judges the number too, counting what is in the pool: the number that it expects is what the pool tells of other transactions.
* fees: gas price of the operator's configuration, or what nodes ask for as a minimum if that is more, up to the operator's cap.
* gas: what the simulation used plus a margin. A packet that the vault refuses is not sent: its word is the reason.

The texts of node errors are recognised here and nowhere else.

Source: Cosmos SDK `types/errors`, `x/auth/ante`, `baseapp`; CometBFT `mempool`; wasmd `x/wasm/types/errors`.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from typing import Any, TypeVar

from cosmpy.aerial.tx import SigningCfg, Transaction, TxFee
from cosmpy.crypto.address import Address
from cosmpy.crypto.keypairs import PrivateKey
from cosmpy.protos.cosmos.auth.v1beta1.auth_pb2 import BaseAccount
from cosmpy.protos.cosmos.auth.v1beta1.query_pb2 import QueryAccountRequest, QueryAccountResponse
from cosmpy.protos.cosmos.base.v1beta1.coin_pb2 import Coin
from cosmpy.protos.cosmos.tx.v1beta1.service_pb2 import SimulateRequest, SimulateResponse
from cosmpy.protos.cosmos.tx.v1beta1.tx_pb2 import AuthInfo, TxBody, TxRaw
from cosmpy.protos.cosmwasm.wasm.v1.tx_pb2 import MsgExecuteContract
from google.protobuf.message import DecodeError

from chains.base import Outcome, SignedTx, Submitter
from chains.cosmos.client import CosmosClient
from chains.cosmos.codec import get_list, get_object, parse_base64
from chains.cosmos.comet_json import TxResult, parse_broadcast, parse_tx
from chains.cosmos.fees import GasPolicy, GasPrice, parse_minimum_price
from chains.cosmos.protobuf import Field, Kind, decode_message
from chains.cosmos.transport import RpcError
from chains.cosmos.vault_json import encode_json, make_recv
from chains.sending import choose_nonce, compute_bumped_fee, get_middle
from messages.digests import Certificate
from messages.errors import Rejected, RelayerError, Unavailable

ResultT = TypeVar("ResultT")

ACCOUNT_PATH = "/cosmos.auth.v1beta1.Query/Account"
SIMULATE_PATH = "/cosmos.tx.v1beta1.Service/Simulate"
CONFIG_PATH = "/cosmos.base.node.v1beta1.Service/Config"
GAS_MARGIN_PERCENT = 30
MAX_HEIGHT = 2**62
TIMEOUT_BLOCKS = 20
"""A transaction may wait in a pool for this many blocks: 20 s to 2 min, well below a packet's five minutes."""
MAX_POOL_ANSWER = 100
MAX_TX_BYTES = 4 << 20
MAX_SEQUENCE = 1 << 53
"""An account sequence beyond this is a lie: it must never reach the arithmetic of 64 bits."""
CODE_POOR, CODE_FEE, CODE_KNOWN, CODE_HEIGHT, CODE_SEQUENCE = 5, 13, 19, 30, 32
"""Codes of the SDK's root code space: insufficient funds, insufficient fee, already in the pool, timeout height, wrong sequence."""

_KNOWN = re.compile(r"already (?:exists )?in (?:the )?(?:mempool )?cache|already in mempool", re.IGNORECASE)
_FULL = re.compile(r"mempool is full", re.IGNORECASE)
_NOT_FOUND = re.compile(r"not found|indexing is disabled", re.IGNORECASE)
_SEQUENCE = re.compile(r"account sequence mismatch, expected (\d{1,20}), got (\d{1,20})")
_CONTRACT = re.compile(r"failed to execute message; message index: \d+: (.*): execute wasm contract failed", re.DOTALL)
_WORD = re.compile(r"[a-z0-9_]{1,64}", re.IGNORECASE)


@dataclass(frozen=True)
class _Account:
    number: int
    sequence: int


@dataclass(frozen=True)
class _Simulated:
    gas: int
    expected: int
    """The account's next number by this endpoint's word, with its pool."""


class CosmosSubmitter(Submitter):
    """Submitter for one vault with one account. ``key``: 32 bytes, handed in; it stays in here."""

    def __init__(self, client: CosmosClient, key: bytes, policy: GasPolicy) -> None:
        self._client = client
        self._rules = client.rules
        self._policy = policy
        self._key = PrivateKey(key)
        self._account = str(Address(self._key.public_key, client.rules.settings.prefix))

    @property
    def account(self) -> str:
        """Address that pays, as the chain writes it."""
        return self._account

    # ------------------------------------------------------------------ prepare

    async def prepare(self, certificate: Certificate, previous: Sequence[SignedTx]) -> SignedTx:
        """See `chains.base.Submitter.prepare`. Rejected: "wrong_vault"; "revert_..." with the vault's word; "gas_cap".

        Unavailable: "no_endpoint"; "fee_cap" (nodes ask for more than the operator allows: wait); "insufficient_funds".
        """
        if certificate.vault_id != self._rules.vault_id:
            raise Rejected(
                "a certificate for another vault",
                got=certificate.vault_id,
                expected=self._rules.vault_id,
                reason="wrong_vault",
            )
        mine = [p for p in previous if p.account == self.account and p.chain == self._rules.chain]
        same = next((p for p in reversed(mine) if self._is_same(p, certificate)), None)
        return await self._prepare(certificate.packet.sequence, make_recv(certificate), mine, same)

    async def prepare_call(self, message: Mapping[str, Any]) -> SignedTx:
        """A transaction with any message for the vault, after everything this account has in the pools; its packet number is 0.

        Raises as `prepare`.
        """
        return await self._prepare(0, message, [], None)

    def _is_same(self, tx: SignedTx, certificate: Certificate) -> bool:
        return tx.vault_id == certificate.vault_id and tx.packet_sequence == certificate.packet.sequence

    async def _prepare(
        self, packet_sequence: int, message: Mapping[str, Any], mine: Sequence[SignedTx], same: SignedTx | None
    ) -> SignedTx:
        execute = self._make_message(message)
        accounts, simulated, heights, price = await asyncio.gather(
            self._ask_all("account", self._get_account),
            self._simulate_everywhere(execute),
            self._ask_all("status", self._get_height),
            self._get_price(),
            return_exceptions=True,
        )
        # by hand: all have ended by now, and the first failure in this order is the one that tells most
        if isinstance(accounts, BaseException):
            raise accounts
        if isinstance(simulated, BaseException):
            raise simulated
        if isinstance(heights, BaseException):
            raise heights
        if isinstance(price, BaseException):
            raise price
        tries = sum(p.packet_sequence == packet_sequence for p in mine)
        # as for the number: lagging is common and boasting is not, and no boast counts every time
        height = get_middle(heights) if tries % 4 == 3 else max(heights)
        counts = [account.sequence for account in accounts]
        number, replaces = choose_nonce(counts, [s.expected for s in simulated], mine, same)
        gas = max(s.gas for s in simulated)
        fee, most = price.get_fee(gas), self._policy.max_price.get_fee(gas)
        if replaces and same is not None:
            old = decode_signed(same.raw)
            if old.timeout_height > height and old.fee >= min(price.get_fee(old.gas), most):
                return same
            fee = min(compute_bumped_fee(old.fee, fee), most)
        # one account has one number on a chain: who names another is outvoted, and where it is one against one, each has its turn
        named = sorted({a.number for a in accounts}, key=lambda n: -sum(a.number == n for a in accounts))
        return await asyncio.to_thread(
            self._sign, packet_sequence, execute, named[tries % len(named)], number, gas, fee, height + TIMEOUT_BLOCKS
        )

    def _make_message(self, message: Mapping[str, Any]) -> MsgExecuteContract:
        return MsgExecuteContract(
            sender=self.account, contract=self._rules.vault_address, msg=encode_json(message), funds=[]
        )

    def _sign(
        self,
        packet_sequence: int,
        execute: MsgExecuteContract,
        account_number: int,
        number: int,
        gas: int,
        fee: int,
        timeout_height: int,
    ) -> SignedTx:
        amount = [Coin(denom=self._policy.price.denom, amount=str(fee))] if fee else None
        tx = Transaction().add_message(execute)
        tx.seal(
            SigningCfg.direct(self._key.public_key, number),
            TxFee(amount, gas_limit=gas),
            timeout_height=timeout_height,
        )
        tx.sign(self._key, self._rules.config.chain_id, account_number, deterministic=True)
        raw: bytes = tx.complete().tx.SerializeToString()
        return SignedTx(
            chain=self._rules.chain,
            vault_id=self._rules.vault_id,
            packet_sequence=packet_sequence,
            account=self.account,
            nonce=number,
            max_fee=fee,
            priority_fee=0,
            tx_id=compute_tx_id(raw),
            raw=raw,
        )

    async def _simulate_everywhere(self, execute: MsgExecuteContract) -> list[_Simulated]:
        """What endpoints say that the message needs; a refusal by the vault counts only where nobody can simulate it.

        An endpoint that lags may not even know the vault, or still expect an older packet.
        """
        found: list[_Simulated] = []
        refused: RelayerError | None = None
        last: RelayerError | None = None
        for source in self._client.sources:
            try:
                found.append(await self._simulate(source, execute))
            except Rejected as error:
                if error.reason.startswith("revert_"):
                    refused = refused or error
                else:
                    last = error
            except Unavailable as error:
                last = error
        allowed = [s for s in found if s.gas <= self._policy.gas_cap]
        if allowed:
            return allowed
        if found:
            raise Rejected(
                "gas estimate above the cap",
                got=min(s.gas for s in found),
                expected=self._policy.gas_cap,
                reason="gas_cap",
            )
        if last is not None and last.reason == "insufficient_funds":
            raise refused or last
        raise refused or self._get_nobody("simulate", last)

    async def _simulate(self, source: str, execute: MsgExecuteContract) -> _Simulated:
        expected = (await self._get_account(source)).sequence
        for _ in range(2):
            raw = await asyncio.to_thread(self._make_unsigned, execute, expected)
            answer = await self._client.query(source, SIMULATE_PATH, SimulateRequest(tx_bytes=raw).SerializeToString())
            mismatch = _SEQUENCE.search(answer.log) if answer.code else None
            if mismatch is None or int(mismatch[1]) == expected:
                break
            expected = _verify_sequence(int(mismatch[1]), source)
        if answer.code:
            raise _translate_refusal(TxResult(b"", 0, answer.code, answer.log), source)
        try:
            used = SimulateResponse.FromString(answer.value).gas_info.gas_used
        except DecodeError as error:
            raise Rejected("not the answer of a simulation", reason="malformed", source=source) from error
        return _Simulated(used * (100 + GAS_MARGIN_PERCENT) // 100, expected)

    def _make_unsigned(self, execute: MsgExecuteContract, number: int) -> bytes:
        tx = Transaction().add_message(execute)
        # a fee, a timeout and the size of a signature cost gas too; none of them is judged in a simulation
        fee = TxFee([Coin(denom=self._policy.price.denom, amount="1")], gas_limit=self._policy.gas_cap)
        tx.seal(SigningCfg.direct(self._key.public_key, number), fee, timeout_height=MAX_HEIGHT)
        unsigned = tx.complete().tx
        unsigned.signatures.append(bytes(64))
        return bytes(unsigned.SerializeToString())

    async def _get_account(self, source: str) -> _Account:
        request = QueryAccountRequest(address=self.account).SerializeToString()
        answer = await self._client.query(source, ACCOUNT_PATH, request)
        if answer.code:
            if "not found" in answer.log:
                raise Unavailable(
                    f"the chain does not know the account {self.account}: send it money first",
                    reason="insufficient_funds",
                    source=source,
                )
            raise Unavailable(f"no account: {answer.log}", reason="no_state", source=source)
        try:
            account = QueryAccountResponse.FromString(answer.value).account
            base = BaseAccount()
            if not account.Unpack(base):
                raise Rejected("not a plain account", got=account.type_url, reason="bad_account", source=source)
        except DecodeError as error:
            raise Rejected("not an account", reason="malformed", source=source) from error
        return _Account(base.account_number, _verify_sequence(base.sequence, source))

    async def _get_height(self, source: str) -> int:
        return (await self._client.get_status(source)).height

    async def _get_price(self) -> GasPrice:
        """The configured price, or the lowest minimum that nodes ask for; Unavailable ("fee_cap") where that is too much."""
        minima: list[Fraction] = []
        for source in self._client.sources:
            try:
                answer = await self._client.query(source, CONFIG_PATH, b"")
            except (Rejected, Unavailable):
                continue  # a node may keep its configuration to itself
            if answer.code == 0:
                minima.append(parse_minimum_price(_get_minimum(answer.value), self._policy.price.denom))
        price = max(self._policy.price.amount, min(minima, default=Fraction(0)))
        if price > self._policy.max_price.amount:
            raise Unavailable(
                "nodes ask for a higher gas price than the operator allows: wait, or raise max_gas_price",
                got=str(GasPrice(price, self._policy.price.denom)),
                expected=f"<= {self._policy.max_price}",
                reason="fee_cap",
            )
        return GasPrice(price, self._policy.price.denom)

    # ------------------------------------------------------------------ send

    async def send(self, signed: SignedTx) -> str:
        """Hand the transaction to every endpoint; its id when at least one has it, or had it already, or has used its number.

        Unavailable: "no_endpoint"; "stale" (it can never be included now: prepare again); "underpriced" (nodes ask for more: prepare
        again); "insufficient_funds"; "busy" (the pool is full). Rejected: "refused" with the node's words.
        """
        params = {"tx": base64.b64encode(signed.raw).decode()}
        taken = False
        failures: list[RelayerError] = []
        for source in self._client.sources:
            try:
                result = parse_broadcast(await self._client.ask(source, "broadcast_tx_sync", params))
                failure = _judge_broadcast(result, source)
            except RpcError as error:
                failure = None if _KNOWN.search(error.what) else _translate_error(error, source)
            except (Rejected, Unavailable) as error:
                failure = error
            if failure is None:
                taken = True
            else:
                failures.append(failure)
        if taken:
            return signed.tx_id
        # what a node said of the transaction tells more than that another was not reachable
        told = ("stale", "underpriced", "insufficient_funds", "refused")
        failures.sort(key=lambda error: error.reason not in told)
        raise failures[0]

    # ------------------------------------------------------------------ outcome

    async def outcome(self, signed: SignedTx) -> Outcome:
        """INCLUDED or FAILED if it is in a block, PENDING if a pool has it, else UNKNOWN; Unavailable if nobody answers."""
        answered = False
        pending = False
        last: RelayerError | None = None
        for source in self._client.sources:
            try:
                result = await self._find_tx(source, bytes.fromhex(signed.tx_id))
                answered = True
                if result is not None:
                    return Outcome.INCLUDED if result.code == 0 else Outcome.FAILED
                pending = pending or await self._is_in_pool(source, signed.raw)
            except (Rejected, Unavailable) as error:
                last = error
        if not answered:
            raise self._get_nobody("tx", last)
        return Outcome.PENDING if pending else Outcome.UNKNOWN

    async def _find_tx(self, source: str, tx_hash: bytes) -> TxResult | None:
        try:
            params = {"hash": base64.b64encode(tx_hash).decode(), "prove": False}
            result = parse_tx(await self._client.ask(source, "tx", params))
        except RpcError as error:
            if _NOT_FOUND.search(error.what):
                return None
            raise
        if result.hash != tx_hash:
            raise Rejected("another transaction", got=result.hash, expected=tx_hash, reason="malformed", source=source)
        return result

    async def _is_in_pool(self, source: str, raw: bytes) -> bool:
        answer = await self._client.ask(source, "unconfirmed_txs", {"limit": str(MAX_POOL_ANSWER)})
        pool = get_list(get_object(answer, "unconfirmed_txs").get("txs"), "transactions", MAX_POOL_ANSWER)
        return any(parse_base64(item, "transaction", MAX_TX_BYTES) == raw for item in pool)

    # ------------------------------------------------------------------ asking

    async def _ask_all(self, what: str, ask: Callable[[str], Awaitable[ResultT]]) -> list[ResultT]:
        answers: list[ResultT] = []
        last: RelayerError | None = None
        for source in self._client.sources:
            try:
                answers.append(await ask(source))
            except (Rejected, Unavailable) as error:
                last = error
        if not answers:
            if last is not None and last.reason == "insufficient_funds":
                raise last
            raise self._get_nobody(what, last)
        return answers

    def _get_nobody(self, what: str, last: RelayerError | None) -> Unavailable:
        return Unavailable(f"no endpoint of {self._rules.chain} answers {what}: {last}", reason="no_endpoint")


# ---- bytes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signed:
    """What a stored transaction says: fee in base units, gas, the last height at which it may be included (0: any)."""

    fee: int
    gas: int
    timeout_height: int


def decode_signed(raw: bytes) -> Signed:
    """Fee, gas and timeout of a signed transaction that this module made; Rejected ("malformed")."""
    try:
        parts = TxRaw.FromString(raw)
        fee = AuthInfo.FromString(parts.auth_info_bytes).fee
        height = TxBody.FromString(parts.body_bytes).timeout_height
    except DecodeError as error:
        raise Rejected("not a transaction of this family", reason="malformed") from error
    return Signed(sum(int(coin.amount) for coin in fee.amount), int(fee.gas_limit), int(height))


def compute_tx_id(raw: bytes) -> str:
    """The name that the chain gives a transaction: SHA-256 in upper-case hex."""
    return sha256(raw).hexdigest().upper()


def _verify_sequence(number: int, source: str) -> int:
    if number > MAX_SEQUENCE:
        raise Rejected("no account has sent so much", got=number, reason="malformed", source=source)
    return number


def _get_minimum(answer: bytes) -> str:
    """The minimum gas prices in a node's configuration, "" where it says none or something else."""
    schema = {
        1: Field("minimum_gas_price", Kind.TEXT),
        2: Field("pruning_keep_recent", Kind.TEXT),
        3: Field("pruning_interval", Kind.TEXT),
        4: Field("halt_height", Kind.UNSIGNED),
    }
    try:
        return str(decode_message(answer, schema)["minimum_gas_price"])
    except Rejected:
        return ""


# ---- words of nodes ---------------------------------------------------------------------------------------------------


def get_contract_word(log: str) -> str | None:
    """The first word of the vault's own error in a node's text, "failed" if it has none; None if the text is about something else."""
    match = _CONTRACT.search(log)
    if match is None:
        return None
    word = _WORD.match(match[1].strip())
    return word[0].lower() if word else "failed"


def _judge_broadcast(result: TxResult, source: str) -> RelayerError | None:
    """None where the pool took it, had it, or has used its number for it or another: then the outcome will show."""
    if result.code in (0, CODE_KNOWN):
        return None
    mismatch = _SEQUENCE.search(result.log) if result.code == CODE_SEQUENCE else None
    if mismatch is not None and int(mismatch[1]) > int(mismatch[2]):
        return None
    return _translate_refusal(result, source)


def _translate_refusal(result: TxResult, source: str) -> RelayerError:
    """What an application's code and text mean."""
    text = result.log
    word = get_contract_word(text)
    if word is not None:
        return Rejected(f"the vault would refuse this: {word}", reason=f"revert_{word}", source=source)
    if _SEQUENCE.search(text):
        return Unavailable(f"the number leaves a gap: {text}", reason="stale", source=source)
    if result.code == CODE_HEIGHT or "timeout height" in text:
        return Unavailable(f"its last height is past: {text}", reason="stale", source=source)
    if result.code == CODE_FEE or "insufficient fee" in text:
        return Unavailable(f"the node asks for a higher fee: {text}", reason="underpriced", source=source)
    if result.code == CODE_POOR or "insufficient funds" in text:
        return Unavailable(f"the account cannot pay: {text}", reason="insufficient_funds", source=source)
    return Rejected(f"the node refuses the transaction: {text}", got=result.code, reason="refused", source=source)


def _translate_error(error: RpcError, source: str) -> RelayerError:
    if _FULL.search(error.what):
        return Unavailable(f"the pool is full: {error.what}", reason="busy", source=source)
    return Rejected(f"the node refuses the transaction: {error.what}", reason="refused", source=source)
