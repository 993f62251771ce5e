"""Builds, signs, sends and follows the transaction that carries a certified packet. Proves nothing.

`prepare` depends only on the certificate, on what was stored before (`previous`) and on what the endpoints say now, so it gives the right
answer after any restart. Endpoints are believed as little as they can be:

* nonce: a transaction for the same packet is replaced at its own nonce, a new one takes the lowest nonce that neither the chain nor a stored
  transaction uses. One endpoint that lags costs nothing, one that boasts costs some rounds, never a packet: a nonce that turns out to be used
  or to leave a gap is chosen anew.
* fees: price = max(min(max(old * 1.10, estimate), 3 * estimate), old), for both fees of EIP-1559, never above the operator's cap. Where that is less
  than the 10 % that nodes demand of a replacement, the stored transaction itself is sent again.
* gas: what the call needs now plus a margin. A call that reverts is not sent: the reason is told (for example that the number is used).
  Once an estimate is known, the next packet is tried with as much for each byte by one call, and estimated only if that is not enough.

The texts of node errors are recognised here and nowhere else.

Source: EIP-1559, EIP-2718, execution-apis; the fee rule is that of the field's best (anchors.md 3, gas and nonces).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from eth_account.signers.local import LocalAccount

from chains.base import Outcome, SignedTx, Submitter
from chains.evm.codec import decode_data, decode_quantity, encode_data, encode_recv, get_revert_reason
from chains.evm.reader import EvmEndpoint
from chains.evm.transport import TIMEOUT_S, RpcError, call, call_all, verify_chain_id
from chains.sending import choose_nonce, compute_bumped_fee, is_replacement
from messages.digests import Certificate
from messages.errors import Rejected, RelayerError, Unavailable

ResultT = TypeVar("ResultT")

GAS_MARGIN_PERCENT = 20
TX_GAS, DATA_GAS = 21_000, 40
"""What a transaction and a byte of its data cost at most before anything runs (EIP-2028, EIP-7623)."""
MAX_REVERT_BYTES = 4096
UINT256_MAX = 2**256 - 1

_ACCEPTED = re.compile(
    r"already known|known transaction|already imported|alreadyknown|already in mempool|already exists", re.IGNORECASE
)
_USED = re.compile(r"nonce too low|nonce is too low|nonce has already been used|oldnonce", re.IGNORECASE)
_UNDERPRICED = re.compile(r"underpriced|replacement fee too low|fee too low to replace", re.IGNORECASE)
_POOR = re.compile(r"insufficient funds|insufficient balance", re.IGNORECASE)


@dataclass(frozen=True)
class FeePolicy:
    """Limits of the operator, in wei of gas: what a transaction may offer at most, and the least tip worth offering."""

    max_fee_cap_wei: int = 500 * 10**9
    min_priority_fee_wei: int = 10**6
    gas_cap: int = 12_000_000


@dataclass(frozen=True)
class _Answers:
    """What one endpoint said to several questions, errors in the places of those that failed."""

    source: str
    answers: list[Any]

    def get(self, i: int) -> Any:
        """One answer; raises the error that stands in its place."""
        if isinstance(self.answers[i], RelayerError):
            raise self.answers[i]
        return self.answers[i]


class EvmSubmitter(Submitter):
    """Submitter for one vault with one account. ``account`` signs; its key is handed in and stays in it."""

    def __init__(
        self,
        chain: str,
        chain_id: int,
        vault_id: bytes,
        vault: bytes,
        endpoints: Sequence[EvmEndpoint],
        account: LocalAccount,
        policy: FeePolicy | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._chain = chain
        self._chain_id = chain_id
        self._vault_id = vault_id
        self._vault = vault
        self._endpoints = tuple(endpoints)
        self._account = account
        self._policy = policy or FeePolicy()
        self._timeout_s = timeout_s
        self._checked: set[str] = set()
        self._gas_per_byte = 0
        """Highest estimate so far, margin included, by the length of its call; 0 before the first."""

    @property
    def account(self) -> str:
        """Address that pays, with checksum."""
        return str(self._account.address)

    # ------------------------------------------------------------------ prepare

    async def prepare(self, certificate: Certificate, previous: Sequence[SignedTx]) -> SignedTx:
        """See `chains.base.Submitter.prepare`. Rejected: "wrong_vault"; "revert_..." with the vault's word; "gas_cap".

        Unavailable: "no_endpoint"; "fee_cap" (the market asks for more than the operator allows: wait).
        """
        if certificate.vault_id != self._vault_id:
            raise Rejected(
                "a certificate for another vault",
                got=certificate.vault_id,
                expected=self._vault_id,
                reason="wrong_vault",
            )
        mine = [p for p in previous if p.account == self.account and p.chain == self._chain]
        same = next((p for p in reversed(mine) if self._is_same(p, certificate)), None)
        data = encode_recv(certificate)
        gas, counts, pending, (base, tip) = await self._ask_everything(data)
        nonce, replaces = choose_nonce(counts, pending, mine, same)
        max_fee, priority_fee = 2 * base + tip, tip
        if replaces and same is not None:
            max_fee, priority_fee = (
                compute_bumped_fee(same.max_fee, max_fee),
                compute_bumped_fee(same.priority_fee, tip),
            )
            is_better = is_replacement(same.max_fee, max_fee) and is_replacement(same.priority_fee, priority_fee)
            if not is_better or max_fee > self._policy.max_fee_cap_wei:
                return same
        if max_fee > self._policy.max_fee_cap_wei:
            raise Unavailable(
                "the market asks for higher fees than the operator allows: wait, or raise the cap",
                got=max_fee,
                expected=f"<= {self._policy.max_fee_cap_wei} wei",
                reason="fee_cap",
            )
        return self._sign(certificate.packet.sequence, data, nonce, gas, max_fee, priority_fee)

    async def prepare_call(self, data: bytes) -> SignedTx:
        """A transaction with any call of the vault, after everything this account has in the pools; its packet number is 0.

        Raises as `prepare`.
        """
        gas, counts, pending, (base, tip) = await self._ask_everything(data)
        if base + tip > self._policy.max_fee_cap_wei:
            raise Unavailable(
                "the market asks for higher fees than the operator allows: raise max_fee_gwei",
                got=base + tip,
                expected=f"<= {self._policy.max_fee_cap_wei} wei",
                reason="fee_cap",
            )
        max_fee = min(2 * base + tip, self._policy.max_fee_cap_wei)
        nonce, _ = choose_nonce(counts, pending, [], None)
        return self._sign(0, data, nonce, gas, max_fee, tip)

    def _is_same(self, tx: SignedTx, certificate: Certificate) -> bool:
        return tx.vault_id == certificate.vault_id and tx.packet_sequence == certificate.packet.sequence

    def _sign(self, sequence: int, data: bytes, nonce: int, gas: int, max_fee: int, priority_fee: int) -> SignedTx:
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": self._chain_id,
                "nonce": nonce,
                "to": self._vault,
                "value": 0,
                "gas": gas,
                "maxFeePerGas": max_fee,
                "maxPriorityFeePerGas": priority_fee,
                "data": data,
            }
        )
        return SignedTx(
            chain=self._chain,
            vault_id=self._vault_id,
            packet_sequence=sequence,
            account=self.account,
            nonce=nonce,
            max_fee=max_fee,
            priority_fee=priority_fee,
            tx_id=encode_data(bytes(signed.hash)),
            raw=bytes(signed.raw_transaction),
        )

    async def _ask_everything(self, data: bytes) -> tuple[int, list[int], list[int], tuple[int, int]]:
        """Gas of a call, the account's nonces (mined, pending) and fees, asked at the same time; raises the first failure in that order.

        Each endpoint gets all questions in one round trip. Nodes search an estimate by calling many times: once one is known, each is asked
        for one call with as much gas for each byte. What a revert means, or that it was not enough, is left to the estimate.
        """
        request = {"from": self.account, "to": encode_data(self._vault), "data": encode_data(data)}
        tried, gas = self._get_expected_gas(len(data))
        asks: list[tuple[str, Sequence[Any]]] = [
            ("eth_getTransactionCount", (self.account, "latest")),
            ("eth_getTransactionCount", (self.account, "pending")),
            ("eth_getBlockByNumber", ("latest", False)),
            ("eth_maxPriorityFeePerGas", ()),
        ]
        if tried:
            asks.append(("eth_call", ({**request, "gas": hex(tried)}, "latest")))
        answers = await asyncio.gather(*(self._ask_one(endpoint, asks) for endpoint in self._endpoints))
        # a revert is an answer, an endpoint that says nothing is none
        calls = [a.answers[4] for a in answers] if tried else []
        told = [c for c in calls if isinstance(c, RpcError) or not isinstance(c, RelayerError)]
        if not told or any(isinstance(c, RpcError) for c in told):
            gas = await self._estimate_gas(request, len(data))
        counts = self._decode_all("eth_getTransactionCount", answers, lambda a: self._decode_count(a.get(0)))
        pending = self._decode_all("eth_getTransactionCount", answers, lambda a: self._decode_count(a.get(1)))
        fees = self._decode_all("fees", answers, self._decode_fees)
        return gas, counts, pending, fees[0]

    async def _ask_one(self, endpoint: EvmEndpoint, asks: Sequence[tuple[str, Sequence[Any]]]) -> _Answers:
        try:
            await self._verify_chain(endpoint)
        except RelayerError as error:
            return _Answers(endpoint.name, [error] * len(asks))
        return _Answers(endpoint.name, await call_all(endpoint.execution, asks, self._timeout_s))

    def _decode_all(
        self, what: str, answers: Sequence[_Answers], decode: Callable[[_Answers], ResultT]
    ) -> list[ResultT]:
        """What the endpoints say, in order, without those that give no sound answer; Unavailable ("no_endpoint") if that is none."""
        found: list[ResultT] = []
        last: RelayerError | None = None
        for answer in answers:
            try:
                found.append(decode(answer))
            except (Rejected, Unavailable) as error:
                error.source = error.source or answer.source
                last = error
        if not found:
            raise self._get_nobody(what, last)
        return found

    async def _estimate_gas(self, request: dict[str, str], size: int) -> int:
        """The highest estimate under the cap: unused gas costs nothing, and an endpoint that lags may not even know the vault."""
        estimates: list[int] = []
        reverted: Rejected | None = None
        last: RelayerError | None = None
        for endpoint in self._endpoints:
            try:
                answer = await self._call(endpoint, "eth_estimateGas", request)
                estimates.append(decode_quantity(answer) * (100 + GAS_MARGIN_PERCENT) // 100)
            except RpcError as error:
                reason = _get_revert(error)
                if reason is None:
                    last = error
                    continue
                # remembered, not believed yet: another endpoint may know a newer state
                reverted = reverted or Rejected(
                    f"the vault would refuse this packet: {reason}",
                    reason="revert_" + re.sub(r"[^a-z0-9]+", "_", reason.lower()).strip("_"),
                    source=endpoint.name,
                )
            except (Rejected, Unavailable) as error:
                last = error
        if estimates:
            self._gas_per_byte = max(self._gas_per_byte, -(-max(estimates) // size))
        allowed = [gas for gas in estimates if gas <= self._policy.gas_cap]
        if allowed:
            return max(allowed)
        if estimates:
            raise Rejected(
                "gas estimate above the cap", got=min(estimates), expected=self._policy.gas_cap, reason="gas_cap"
            )
        raise reverted or self._get_nobody("eth_estimateGas", last)

    def _get_expected_gas(self, size: int) -> tuple[int, int]:
        """(gas to try a call of so many bytes with, gas limit of its transaction) by the dearest byte that was estimated so far; 0 for none."""
        tried = self._gas_per_byte * size
        intrinsic = TX_GAS + DATA_GAS * size  # some nodes count it in a call, others don't
        gas = (tried + intrinsic) * (100 + GAS_MARGIN_PERCENT) // 100
        return (tried, gas) if tried and gas <= self._policy.gas_cap else (0, 0)

    def _decode_fees(self, answer: _Answers) -> tuple[int, int]:
        """Base fee of the latest block and a tip, in wei of gas."""
        block, told = answer.get(2), answer.get(3)
        if not isinstance(block, dict):
            raise Rejected("no latest block", got=type(block).__name__, reason="malformed")
        base = decode_quantity(block.get("baseFeePerGas"), UINT256_MAX)
        tip = decode_quantity(told, UINT256_MAX)
        return base, max(tip, self._policy.min_priority_fee_wei)

    # ------------------------------------------------------------------ send

    async def send(self, signed: SignedTx) -> str:
        """Hand the transaction to every endpoint; its id when at least one has it, or had it already, or mined its nonce.

        Unavailable: "no_endpoint"; "underpriced" (another transaction holds the nonce: prepare again); "insufficient_funds" (the account
        needs money). Rejected: "refused" with the node's words.
        """
        raw = encode_data(signed.raw)
        taken = False
        failures: list[RelayerError] = []
        for endpoint in self._endpoints:
            try:
                await self._call(endpoint, "eth_sendRawTransaction", raw)
                taken = True
            except RpcError as error:
                # "nonce too low": it, or a replacement of it, is mined; the outcome will show which
                if _ACCEPTED.search(error.what) or _USED.search(error.what):
                    taken = True
                else:
                    failures.append(_translate_refusal(error, endpoint.name))
            except (Rejected, Unavailable) as error:
                failures.append(error)
        if taken:
            return signed.tx_id
        # what a node said of the transaction tells more than that another was not reachable
        failures.sort(key=lambda error: error.reason not in ("underpriced", "insufficient_funds", "refused"))
        raise failures[0] if failures else self._get_nobody("eth_sendRawTransaction", None)

    # ------------------------------------------------------------------ outcome

    async def outcome(self, signed: SignedTx) -> Outcome:
        """INCLUDED or FAILED by a receipt at the newest block, PENDING if a pool has it, else UNKNOWN; Unavailable if nobody answers."""
        answered = False
        pending = False
        last: RelayerError | None = None
        for endpoint in self._endpoints:
            try:
                receipt = await self._call(endpoint, "eth_getTransactionReceipt", signed.tx_id)
                answered = True
                if receipt is not None:
                    return self._decode_receipt(receipt, signed)
                if not pending:
                    pending = await self._call(endpoint, "eth_getTransactionByHash", signed.tx_id) is not None
            except (Rejected, Unavailable) as error:
                last = error
        if not answered:
            raise self._get_nobody("eth_getTransactionReceipt", last)
        return Outcome.PENDING if pending else Outcome.UNKNOWN

    def _decode_receipt(self, receipt: object, signed: SignedTx) -> Outcome:
        if not isinstance(receipt, dict) or decode_data(receipt.get("transactionHash"), 32) != bytes.fromhex(
            signed.tx_id[2:]
        ):
            raise Rejected("a receipt of another transaction", expected=signed.tx_id, reason="malformed")
        return Outcome.INCLUDED if decode_quantity(receipt.get("status")) == 1 else Outcome.FAILED

    # ------------------------------------------------------------------ asking

    async def _call(self, endpoint: EvmEndpoint, method: str, *params: Any) -> Any:
        try:
            await self._verify_chain(endpoint)
            return await call(endpoint.execution, method, params, self._timeout_s)
        except RelayerError as error:
            error.source = error.source or endpoint.name
            raise

    async def _verify_chain(self, endpoint: EvmEndpoint) -> None:
        if endpoint.name not in self._checked:
            await verify_chain_id(endpoint.execution, self._chain_id, self._timeout_s)
            self._checked.add(endpoint.name)

    @staticmethod
    def _decode_count(answer: object) -> int:
        return decode_quantity(answer)

    def _get_nobody(self, method: str, last: RelayerError | None) -> Unavailable:
        return Unavailable(
            f"no endpoint of {self._chain} answers {method}: {last}" if last else f"{self._chain} has no endpoint",
            reason="no_endpoint",
        )


def _get_revert(error: RpcError) -> str | None:
    """The word of a revert, "" if it has none, or None if the error is something else."""
    if isinstance(error.data, str) and error.data.startswith("0x"):
        try:
            return get_revert_reason(decode_data(error.data, max_bytes=MAX_REVERT_BYTES)) or "without a word"
        except Rejected:
            return "without a word"
    return "without a word" if error.code == 3 or "revert" in error.what.lower() else None


def _translate_refusal(error: RpcError, source: str) -> RelayerError:
    if _UNDERPRICED.search(error.what):
        return Unavailable(f"another transaction holds this nonce: {error.what}", reason="underpriced", source=source)
    if _POOR.search(error.what):
        return Unavailable(f"the account cannot pay: {error.what}", reason="insufficient_funds", source=source)
    return Rejected(f"the node refuses the transaction: {error.what}", reason="refused", source=source)
