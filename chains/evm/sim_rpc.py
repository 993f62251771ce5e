"""The two doors of a simulated endpoint, JSON-RPC and Beacon API, and the ways in which an endpoint can lie.

Several endpoints stand over one chain, each with its own `Lies`; the reader cannot tell them from real ones. Every lie is what a
real endpoint has been seen to do (incidents.md E1 to E8, fault table 8 to 12). Without lies the doors answer like go-ethereum.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from web3.providers.async_base import AsyncBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from chains.evm.codec import OUTBOX_TOPIC
from chains.evm.sim_chain import GAS_LIMIT, CallResult, SimBlock, SimLog, SimReceipt, SimTransaction
from chains.evm.transport import verify_status
from messages.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from chains.evm.sim import SimNetwork

TIP_WEI = 1_000_000_000
GAS_INTRINSIC = 21_000
ERROR_REVERTED = "08c379a0"  # selector of Error(string)


@dataclass
class Lies:
    """How one endpoint misbehaves; all off by default. Change the fields at any time.

    Reachability: ``down`` refuses connections, ``fail_every`` n fails each n-th request with status 503, ``slow_s`` waits real
    seconds before each answer. Staleness: ``stall_slot`` answers everything as if that slot were now. Logs: ``drop_logs`` answers
    [] (E5), ``drop_log_every`` n leaves out each n-th, ``reorder_logs`` turns the order round, ``removed_logs`` marks them
    removed (E6), ``foreign_logs`` ignores the address filter (E2), ``forge_logs`` changes the last byte of each outbox packet. State:
    ``forge_head`` changes the proven storage value but not its proof, ``forge_sequence`` adds to the other slots. Consensus:
    ``forge_signature``, ``forge_finality`` (another finalized header under the old branch), ``participation`` (seats that sign),
    ``clock_ahead_s`` (updates signed in the future), ``equivocate`` (a second finalized header, really signed).
    """

    down: bool = False
    fail_every: int = 0
    slow_s: float = 0.0
    stall_slot: int | None = None
    chain_id: int | None = None
    drop_logs: bool = False
    drop_log_every: int = 0
    reorder_logs: bool = False
    removed_logs: bool = False
    foreign_logs: bool = False
    forge_logs: bool = False
    forge_head: bool = False
    forge_sequence: int = 0
    forge_signature: bool = False
    forge_finality: bool = False
    participation: int | None = None
    clock_ahead_s: int = 0
    equivocate: bool = False
    drop_sent: bool = False
    """Accepts transactions and forgets them (fault 16)."""


@dataclass(frozen=True)
class LogLimits:
    """What providers put on eth_getLogs: blocks per range and logs per answer."""

    max_range: int = 10_000
    max_results: int = 10_000


class _RpcFailure(Exception):
    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({"data": data} if data else {})


class _Door:
    """What both doors share: counting, failing, and which slot is now."""

    def __init__(self, network: SimNetwork, lies: Lies) -> None:
        self.network = network
        self.lies = lies
        self.requests = 0

    async def enter(self) -> None:
        self.requests += 1
        if self.lies.down:
            raise ConnectionRefusedError("connection refused")
        if self.lies.slow_s:
            await asyncio.sleep(self.lies.slow_s)
        if self.lies.fail_every and self.requests % self.lies.fail_every == 0:
            raise Unavailable("the endpoint is not able to answer: busy", got=503, reason="http_status")
        self.network.tick()

    def get_slot(self) -> int:
        slot = self.network.get_slot()
        return slot if self.lies.stall_slot is None else min(slot, self.lies.stall_slot)


class SimBeaconTransport:
    """The Beacon API of one endpoint."""

    def __init__(self, network: SimNetwork, lies: Lies) -> None:
        self._door = _Door(network, lies)

    async def get(self, path: str, params: Mapping[str, str]) -> Any:
        """See `transport.BeaconTransport.get`."""
        await self._door.enter()
        status, value = self.handle(path, params)
        verify_status(status, str(value).encode())
        return value

    def handle(self, path: str, query: Mapping[str, str]) -> tuple[int, Any]:
        """(HTTP status, JSON value) of one GET, with the endpoint's lies applied: all a server needs to call."""
        lies, network = self._door.lies, self._door.network
        slot = self._door.get_slot()
        status, value = network.beacon.handle(path, query, slot)
        if status != 200 or "light_client" not in path or "bootstrap" in path:
            return status, value
        if lies.equivocate or lies.participation is not None or lies.clock_ahead_s:
            return self._resign(path, slot)
        if isinstance(value, list):
            return status, [self._spoil(update) for update in value]
        return status, self._spoil(value)

    def _resign(self, path: str, slot: int) -> tuple[int, Any]:
        """An update that the committee really signs although it never should have, or that too few sign."""
        lies, network = self._door.lies, self._door.network
        beacon = network.beacon
        attested = beacon.get_block_at(slot - 1)
        finalized = beacon.get_block(attested.finalized_root)
        if finalized is None:
            return 404, {"code": 404, "message": "nothing is finalized yet"}
        if lies.equivocate:
            attested, finalized = network.make_equivocation(attested, finalized)
        ahead = lies.clock_ahead_s // beacon.schedule.seconds_per_slot
        update = beacon.make_update(
            attested,
            finalized,
            committee="updates" in path,
            signature_slot=attested.slot + 1 + ahead,
            participation=lies.participation,
        )
        return 200, [update] if "updates" in path else update

    def _spoil(self, update: dict[str, Any]) -> dict[str, Any]:
        lies = self._door.lies
        if not (lies.forge_signature or lies.forge_finality):
            return update
        data = dict(update["data"])
        if lies.forge_signature:
            # the signature of another message: a valid point, a wrong statement
            other = self._door.network.beacon.make_aggregate(
                self._door.network.beacon.blocks[0], int(data["signature_slot"])
            )
            data["sync_aggregate"] = other
        if lies.forge_finality and "finalized_header" in data:
            header = dict(data["finalized_header"])
            header["beacon"] = {**header["beacon"], "state_root": "0x" + "11" * 32}
            data["finalized_header"] = header
        return {**update, "data": data}


class SimExecutionProvider(AsyncBaseProvider):
    """The JSON-RPC of one endpoint, as a web3 provider."""

    def __init__(self, network: SimNetwork, lies: Lies, limits: LogLimits) -> None:
        super().__init__()
        self.limits = limits
        self._door = _Door(network, lies)
        self._lies = lies
        self._network = network
        self._chain = network.chain
        self._methods: dict[str, Callable[..., Any]] = {
            "eth_chainId": self._chain_id,
            "net_version": lambda: str(int(self._chain_id(), 16)),
            "web3_clientVersion": lambda: "sim/py-evm",
            "eth_blockNumber": lambda: hex(self._resolve("latest").number),
            "eth_getBlockByNumber": self._get_block,
            "eth_getBlockByHash": self._get_block,
            "eth_getLogs": self._get_logs,
            "eth_getProof": self._get_proof,
            "eth_getStorageAt": lambda a, s, t="latest": _hex(
                self._chain.get_storage(self._resolve(t), _address(a), int(s, 16))
            ),
            "eth_getCode": lambda a, t="latest": _hex(self._chain.get_code(self._resolve(t), _address(a))),
            "eth_getBalance": lambda a, t="latest": hex(self._account(a, t)[1]),
            "eth_getTransactionCount": self._get_nonce,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate_gas,
            "eth_sendRawTransaction": self._send,
            "eth_getTransactionReceipt": self._get_receipt,
            "eth_getTransactionByHash": self._get_transaction,
            "eth_gasPrice": lambda: hex(self._base_fee() + TIP_WEI),
            "eth_maxPriorityFeePerGas": lambda: hex(TIP_WEI),
            "eth_feeHistory": self._fee_history,
        }

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """One JSON-RPC call: {"jsonrpc", "id", "result"} or {"jsonrpc", "id", "error"}."""
        await self._door.enter()
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": self._door.requests}
        function = self._methods.get(method)
        try:
            if function is None:
                raise _RpcFailure(-32601, f"the method {method} does not exist/is not available")
            answer["result"] = function(*params)
        except _RpcFailure as failure:
            answer["error"] = failure.error
        except Rejected as error:
            answer["error"] = {"code": -32000, "message": error.what}
        return answer  # type: ignore[return-value]  # web3's TypedDict names more fields than an answer has

    # ------------------------------------------------------------------ blocks

    def _chain_id(self) -> str:
        return hex(self._chain.chain_id if self._lies.chain_id is None else self._lies.chain_id)

    def _resolve(self, tag: str) -> SimBlock:
        slot = self._door.get_slot()
        if tag in ("finalized", "safe"):
            return self._network.get_finalized_block(slot)
        latest = next(b for b in reversed(self._chain.blocks) if b.slot <= slot)
        if tag in ("latest", "pending"):
            return latest
        if tag == "earliest":
            return self._chain.blocks[0]
        block = self._chain.get_block(int(tag, 16))
        if block is None or block.number > latest.number:
            raise _RpcFailure(-32000, "header not found")
        return block

    def _get_block(self, which: str, full: bool) -> Any:
        try:
            block = self._chain.get_block(bytes.fromhex(which[2:])) if len(which) == 66 else self._resolve(which)
        except _RpcFailure:
            return None
        if block is None:
            return None
        header = block.header
        transactions: list[Any] = [_hex(t.hash) for t in block.transactions]
        if full:
            transactions = [_describe_transaction(block, i) for i in range(len(block.transactions))]
        return {
            "number": hex(block.number),
            "hash": _hex(block.hash),
            "parentHash": _hex(header.parent_hash),
            "sha3Uncles": _hex(header.uncles_hash),
            "miner": _hex(header.coinbase),
            "stateRoot": _hex(header.state_root),
            "transactionsRoot": _hex(header.transaction_root),
            "receiptsRoot": _hex(header.receipt_root),
            "logsBloom": _hex(int(header.bloom).to_bytes(256, "big")),
            "difficulty": "0x0",
            "totalDifficulty": "0x0",
            "gasLimit": hex(header.gas_limit),
            "gasUsed": hex(header.gas_used),
            "timestamp": hex(block.timestamp),
            "extraData": _hex(header.extra_data),
            "mixHash": _hex(header.mix_hash),
            "nonce": _hex(header.nonce),
            "baseFeePerGas": hex(header.base_fee_per_gas),
            "withdrawalsRoot": _hex(header.withdrawals_root),
            "withdrawals": [],
            "blobGasUsed": hex(header.blob_gas_used),
            "excessBlobGas": hex(header.excess_blob_gas),
            "parentBeaconBlockRoot": _hex(header.parent_beacon_block_root),
            "requestsHash": _hex(header.requests_hash),
            "size": "0x400",
            "uncles": [],
            "transactions": transactions,
        }

    # ------------------------------------------------------------------ logs

    def _get_logs(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        if "blockHash" in query:
            block = self._chain.get_block(bytes.fromhex(query["blockHash"][2:]))
            if block is None:
                raise _RpcFailure(-32000, "unknown block")
            blocks = [block]
        else:
            first, last = (self._number(query.get(name, "latest")) for name in ("fromBlock", "toBlock"))
            if last - first >= self.limits.max_range:
                raise _RpcFailure(-32602, f"block range is too large: max is {self.limits.max_range} blocks")
            # a node that lags behind answers with what it has, without an error (go-ethereum #24078)
            blocks = self._chain.blocks[first : min(last, self._resolve("latest").number) + 1]
        found = [
            (block, log)
            for block in blocks
            for receipt in block.receipts
            for log in receipt.logs
            if self._matches(log, query)
        ]
        if len(found) > self.limits.max_results:
            raise _RpcFailure(-32005, f"query returned more than {self.limits.max_results} results")
        return self._distort([_describe_log(block, log) for block, log in found])

    def _number(self, tag: str) -> int:
        return int(tag, 16) if tag.startswith("0x") else self._resolve(tag).number

    def _matches(self, log: SimLog, query: Mapping[str, Any]) -> bool:
        wanted = query.get("address")
        if wanted is not None and not self._lies.foreign_logs:
            addresses = [wanted] if isinstance(wanted, str) else wanted
            if log.address not in [_address(a) for a in addresses]:
                return False
        topics = query.get("topics", [])
        if len(topics) > len(log.topics):
            return False
        for want, have in zip(topics, log.topics, strict=False):
            options = [want] if isinstance(want, str) else want
            if options is not None and _hex(have) not in [o.lower() for o in options]:
                return False
        return True

    def _distort(self, logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        lies = self._lies
        if lies.drop_logs:
            return []
        if lies.drop_log_every:
            logs = [log for i, log in enumerate(logs, 1) if i % lies.drop_log_every]
        if lies.removed_logs:
            logs = [{**log, "removed": True} for log in logs]
        if lies.forge_logs:
            outbox = _hex(OUTBOX_TOPIC)
            logs = [{**log, "data": _flip(log["data"])} if log["topics"][:1] == [outbox] else log for log in logs]
        return logs[::-1] if lies.reorder_logs else logs

    # ------------------------------------------------------------------ state

    def _account(self, address: str, tag: str) -> tuple[int, int]:
        return self._chain.get_account_state(self._resolve(tag), _address(address))

    def _get_nonce(self, address: str, tag: str = "latest") -> str:
        if tag == "pending" and self._lies.stall_slot is None:
            return hex(self._chain.get_pending_nonce(_address(address)))
        return hex(self._account(address, tag)[0])

    def _get_proof(self, address: str, slots: Sequence[str], tag: str) -> dict[str, Any]:
        import rlp

        block = self._resolve(tag)
        encoded, proof, storage = self._chain.prove(block, _address(address), [int(s, 16) for s in slots])
        fields = [bytes(f) for f in rlp.decode(encoded)] if encoded else [b"", b"", bytes(32), bytes(32)]
        described: list[dict[str, Any]] = []
        for index, (slot, (value, nodes)) in enumerate(zip(slots, storage, strict=True)):
            said = value
            if self._lies.forge_head and index == 0:
                said = value ^ 1
            if self._lies.forge_sequence and index > 0:
                said = value + self._lies.forge_sequence
            described.append({"key": slot, "value": hex(said), "proof": [_hex(node) for node in nodes]})
        return {
            "address": address.lower(),
            "accountProof": [_hex(node) for node in proof],
            "nonce": hex(int.from_bytes(fields[0], "big")),
            "balance": hex(int.from_bytes(fields[1], "big")),
            "storageHash": _hex(fields[2]),
            "codeHash": _hex(fields[3]),
            "storageProof": described,
        }

    def _run(self, call: Mapping[str, str], tag: str) -> CallResult:
        data = call.get("data", call.get("input", "0x"))
        to = call.get("to")
        result = self._chain.call(
            self._resolve(tag),
            to=_address(to) if to else None,
            data=bytes.fromhex(data[2:]),
            sender=_address(call.get("from", "0x" + "00" * 20)),
            value=int(call.get("value", "0x0"), 16),
            gas=min(int(call.get("gas", hex(GAS_LIMIT)), 16), GAS_LIMIT),
            # the next block is the one a call would land in; an idle simulated chain may be many slots behind the clock
            slot=self._door.get_slot() + 1,
        )
        if not result.succeeded:
            raise _RpcFailure(3, "execution reverted" + _get_reason(result.output), _hex(result.output))
        return result

    def _call(self, call: Mapping[str, str], tag: str = "latest") -> str:
        return _hex(self._run(call, tag).output)

    def _estimate_gas(self, call: Mapping[str, str], tag: str = "latest") -> str:
        result = self._run(call, tag)
        data = bytes.fromhex(call.get("data", call.get("input", "0x"))[2:])
        zeros = data.count(0)
        tokens = zeros + 4 * (len(data) - zeros)
        creation = 32_000 + 2 * ((len(data) + 31) // 32) if not call.get("to") else 0
        used = GAS_INTRINSIC + creation + 4 * tokens + result.gas_used
        # 1/64 for what a caller must hold back at each call (EIP-150); 10 a token is the floor price of data (EIP-7623)
        return hex(max(used + used // 63, GAS_INTRINSIC + 10 * tokens))

    # ------------------------------------------------------------------ transactions

    def _base_fee(self) -> int:
        return int(self._resolve("latest").header.base_fee_per_gas)

    def _send(self, raw: str) -> str:
        data = bytes.fromhex(raw[2:])
        if self._lies.drop_sent:
            from eth_hash.auto import keccak

            return _hex(keccak(data))
        return _hex(self._chain.send_raw(data, self._network.get_slot()))

    def _find(self, transaction_hash: str) -> tuple[SimBlock, SimTransaction, SimReceipt] | None:
        found = self._chain.get_transaction(bytes.fromhex(transaction_hash[2:]))
        return None if found is None or found[0].slot > self._door.get_slot() else found

    def _get_receipt(self, transaction_hash: str) -> Any:
        found = self._find(transaction_hash)
        if found is None:
            return None
        block, transaction, receipt = found
        return {
            "transactionHash": _hex(transaction.hash),
            "transactionIndex": hex(receipt.index),
            "blockHash": _hex(block.hash),
            "blockNumber": hex(block.number),
            "from": _hex(transaction.sender),
            "to": _hex(transaction.decoded.to) if transaction.decoded.to else None,
            "status": "0x1" if receipt.succeeded else "0x0",
            "gasUsed": hex(receipt.gas_used),
            "cumulativeGasUsed": hex(receipt.cumulative_gas),
            "effectiveGasPrice": hex(receipt.effective_gas_price),
            "contractAddress": _hex(receipt.contract) if receipt.contract else None,
            "logs": [_describe_log(block, log) for log in receipt.logs],
            "logsBloom": _hex(int(block.header.bloom).to_bytes(256, "big")),
            "type": "0x2",
        }

    def _get_transaction(self, transaction_hash: str) -> Any:
        found = self._find(transaction_hash)
        if found:
            return _describe_transaction(found[0], found[2].index)
        waiting = self._chain.pool.get(bytes.fromhex(transaction_hash[2:]))
        return _describe_pending(waiting) if waiting else None

    def _fee_history(self, count: str | int, newest: str, percentiles: Sequence[float] | None = None) -> dict[str, Any]:
        last = self._resolve(newest)
        wanted = count if isinstance(count, int) else int(count, 16)
        blocks = self._chain.blocks[max(last.number - min(wanted, 1024) + 1, 0) : last.number + 1]
        fees = [int(b.header.base_fee_per_gas) for b in blocks]
        answer: dict[str, Any] = {
            "oldestBlock": hex(blocks[0].number),
            "baseFeePerGas": [hex(fee) for fee in [*fees, max(fees[-1], self._chain.base_fee_floor_wei)]],
            "gasUsedRatio": [b.header.gas_used / b.header.gas_limit for b in blocks],
        }
        if percentiles is not None:
            answer["reward"] = [[hex(TIP_WEI) for _ in percentiles] for _ in blocks]
        return answer


# ---- JSON forms -------------------------------------------------------------------------------------------------------


def _hex(data: bytes) -> str:
    return "0x" + bytes(data).hex()


def _address(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _flip(data: str) -> str:
    """Change the last byte: the amount of a deposit, still well formed."""
    return data[:-2] + f"{int(data[-2:], 16) ^ 1:02x}"


def _get_reason(output: bytes) -> str:
    if output[:4].hex() != ERROR_REVERTED or len(output) < 68:
        return ""
    size = int.from_bytes(output[36:68], "big")
    return ": " + output[68 : 68 + size].decode("utf-8", "replace")


def _describe_log(block: SimBlock, log: SimLog) -> dict[str, Any]:
    return {
        "address": _hex(log.address),
        "topics": [_hex(topic) for topic in log.topics],
        "data": _hex(log.data),
        "blockNumber": hex(block.number),
        "blockHash": _hex(block.hash),
        "blockTimestamp": hex(block.timestamp),
        "transactionHash": _hex(log.transaction_hash),
        "transactionIndex": hex(log.transaction_index),
        "logIndex": hex(log.index),
        "removed": False,
    }


def _describe_pending(transaction: SimTransaction) -> dict[str, Any]:
    decoded = transaction.decoded
    return {
        "hash": _hex(transaction.hash),
        "from": _hex(transaction.sender),
        "to": _hex(decoded.to) if decoded.to else None,
        "nonce": hex(transaction.nonce),
        "gas": hex(decoded.gas),
        "maxFeePerGas": hex(transaction.max_fee),
        "maxPriorityFeePerGas": hex(transaction.priority_fee),
        "value": hex(decoded.value),
        "input": _hex(decoded.data),
        "type": "0x2",
        "blockHash": None,
        "blockNumber": None,
        "transactionIndex": None,
    }


def _describe_transaction(block: SimBlock, index: int) -> dict[str, Any]:
    return _describe_pending(block.transactions[index]) | {
        "blockHash": _hex(block.hash),
        "blockNumber": hex(block.number),
        "transactionIndex": hex(index),
    }


def copy_lies(lies: Lies) -> Lies:
    """A copy, for an endpoint of its own."""
    return replace(lies)
