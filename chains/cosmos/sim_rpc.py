"""The door of a simulated Cosmos endpoint, CometBFT's JSON-RPC, and the ways in which an endpoint can lie.

Several endpoints stand over one chain, each with its own `Lies`; the adapter cannot tell them from real ones. Without lies a door answers
as a node of wasmd v0.70 on CometBFT v0.39 does: 64-bit numbers as text, hashes in upper-case hex, bytes in base64, events as plain texts,
errors of RPC as errors and errors of the application as codes in a good answer.

Source: CometBFT `rpc/core`, `libs/json`; Cosmos SDK `baseapp/abci.go`, `store/rootmulti`; wasmd `x/wasm/keeper/querier.go`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from cosmpy.protos.cosmos.auth.v1beta1.query_pb2 import QueryAccountRequest, QueryAccountResponse
from cosmpy.protos.cosmos.bank.v1beta1.query_pb2 import QueryBalanceRequest, QueryBalanceResponse
from cosmpy.protos.cosmos.base.abci.v1beta1.abci_pb2 import GasInfo, Result, TxMsgData
from cosmpy.protos.cosmos.base.node.v1beta1.query_pb2 import ConfigResponse
from cosmpy.protos.cosmos.base.v1beta1.coin_pb2 import Coin
from cosmpy.protos.cosmos.tx.v1beta1.service_pb2 import SimulateRequest, SimulateResponse
from cosmpy.protos.cosmwasm.wasm.v1.query_pb2 import (
    CodeInfoResponse,
    QueryCodeRequest,
    QueryCodeResponse,
    QueryContractInfoRequest,
    QueryContractInfoResponse,
    QueryRawContractStateRequest,
    QueryRawContractStateResponse,
    QuerySmartContractStateRequest,
    QuerySmartContractStateResponse,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message

from chains.cosmos.hashing import compute_address
from chains.cosmos.ics23 import encode_entry
from chains.cosmos.proofs import OUTBOX_HEAD_KEY, PACKET_TABLE
from chains.cosmos.protobuf import HEADER_BYTES
from chains.cosmos.sim_chain import AppError, Context, ContractStorage, Event, TxResult
from chains.cosmos.transport import make_rpc_error
from chains.cosmos.types import NANOSECONDS, BlockId, Commit, CommitSig, Flag, Header, KeyType, Validator
from chains.cosmos.validators import TWO_THIRDS, is_above
from chains.cosmos.wasm_vm import GasMeter, OutOfGas
from messages.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from chains.cosmos.comet_sim import CometBlock
    from chains.cosmos.sim import SimCosmos

NODE_VERSION = "0.39.0"
OUTBOX_EVENT = "wasm-optsettle_out"
VAULT_EVENTS = (OUTBOX_EVENT, "wasm-optsettle_in")
PACKET_KEY_BYTES = 42
DEFAULT_PAGE, MAX_PAGE = 30, 100
MAX_QUERY_LENGTH = 512
MAX_REQUEST_BYTES = 2 << 20
INTERNAL_ERROR, INVALID_PARAMS, NO_METHOD = -32603, -32602, -32601
_CONDITION = re.compile(r"\s*([\w.\-]+)\s*(>=|<=|=|>|<)\s*(?:'([^']*)'|(\d+))\s*", re.ASCII)


@dataclass
class Lies:
    """How one endpoint misbehaves; all off by default. Change the fields at any time.

    Reachability: ``down`` refuses connections, ``fail_every`` n fails each n-th request with status 503, ``slow_s`` waits real seconds
    before each answer. Staleness: ``stall_height`` answers everything as if that block were the newest. Events, and the vault's records of
    packets with them: ``drop_events`` tells none of the vault (E5), ``drop_event_every`` n leaves out each n-th, ``reorder_events`` turns the
    order round, ``forge_events`` changes the last byte of each outbox packet, ``undo_results`` tells every transaction as one that failed.
    State: ``forge_head`` changes the proven outbox head but not its proof,
    ``forge_sequence`` adds to the outbox number. Headers, always the newest one: ``forge_signature``, ``too_few`` (no two thirds sign),
    ``clock_ahead_s`` (one more header, of the future, really signed), ``forge_state`` (another app hash under the old commit), ``equivocate`` (a
    second header, really signed).
    """

    down: bool = False
    fail_every: int = 0
    slow_s: float = 0.0
    stall_height: int | None = None
    chain_id: str | None = None
    no_index: bool = False
    """Keeps no index of transactions: not a lie, but a node that must be asked block by block."""
    drop_events: bool = False
    drop_event_every: int = 0
    reorder_events: bool = False
    forge_events: bool = False
    undo_results: bool = False
    forge_head: bool = False
    forge_sequence: int = 0
    forge_signature: bool = False
    too_few: bool = False
    clock_ahead_s: int = 0
    forge_state: bool = False
    equivocate: bool = False
    drop_sent: bool = False
    """Accepts transactions and forgets them (fault 16)."""


class _RpcFailure(Exception):
    """An error of RPC: CometBFT says what happened in ``data``."""

    def __init__(self, data: str, code: int = INTERNAL_ERROR, message: str = "Internal error") -> None:
        super().__init__(data)
        self.error: dict[str, Any] = {"code": code, "message": message} | ({"data": data} if data else {})


class SimCometRpc:
    """The JSON-RPC of one endpoint: a `transport.CometTransport`."""

    def __init__(self, chain: SimCosmos, lies: Lies, name: str) -> None:
        self._chain = chain
        self._lies = lies
        self._name = name
        self.requests = 0
        self._methods: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "health": lambda _: {},
            "status": lambda _: self._get_status(),
            "abci_info": lambda _: self._get_info(),
            "header": lambda p: {"header": describe_header(self._get_block(p).header)},
            "commit": self._get_commit,
            "validators": self._get_validators,
            "block": self._describe_block,
            "block_results": self._get_block_results,
            "abci_query": self._query,
            "tx": self._get_tx,
            "tx_search": self._search,
            "broadcast_tx_sync": self._broadcast,
            "unconfirmed_txs": self._get_pool,
            "num_unconfirmed_txs": lambda _: self._count_pool(),
        }
        self._routes: dict[str, Callable[[Context, bytes], Message]] = {
            "/cosmos.auth.v1beta1.Query/Account": self._answer_account,
            "/cosmos.bank.v1beta1.Query/Balance": self._answer_balance,
            "/cosmos.base.node.v1beta1.Service/Config": self._answer_config,
            "/cosmos.tx.v1beta1.Service/Simulate": self._answer_simulate,
            "/cosmwasm.wasm.v1.Query/SmartContractState": self._answer_smart,
            "/cosmwasm.wasm.v1.Query/RawContractState": self._answer_raw,
            "/cosmwasm.wasm.v1.Query/ContractInfo": self._answer_contract,
            "/cosmwasm.wasm.v1.Query/Code": self._answer_code,
        }

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """See `transport.CometTransport.call`."""
        self.requests += 1
        if self._lies.down:
            raise ConnectionRefusedError("connection refused")
        if self._lies.slow_s:
            await asyncio.sleep(self._lies.slow_s)
        if self._lies.fail_every and self.requests % self._lies.fail_every == 0:
            raise Unavailable("the endpoint is not able to answer: busy", got=503, reason="http_status")
        answer = self.handle(method, params)
        if "error" in answer:
            raise make_rpc_error(answer["error"])
        return answer["result"]

    async def close(self) -> None:
        """See `transport.CometTransport.close`."""

    def handle(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """{"result": ...} or {"error": ...} of one call: all a server needs to wrap."""
        self._chain.tick()
        function = self._methods.get(method)
        try:
            if function is None:
                raise _RpcFailure("", NO_METHOD, "Method not found")
            return {"result": function(params)}
        except _RpcFailure as failure:
            return {"error": failure.error}

    # ------------------------------------------------------------------ where the endpoint stands

    def _get_height(self) -> int:
        """The newest height as this endpoint tells it."""
        stalled = self._lies.stall_height
        return self._chain.height if stalled is None else min(stalled, self._chain.height)

    def _read_height(self, params: Mapping[str, Any], newest: int) -> int:
        value = params.get("height")
        if value is None or value == "":
            return newest
        height = _read_integer(value, "height")
        if height <= 0:
            raise _RpcFailure(f"height must be greater than 0, but got {height}")
        if height > newest:
            raise _RpcFailure(f"height {height} must be less than or equal to the current blockchain height {newest}")
        return height

    def _get_block(self, params: Mapping[str, Any]) -> CometBlock:
        newest = self._get_tip()
        height = self._read_height(params, newest)
        if height > self._chain.height:
            return self._make_future_block()
        block = self._chain.comet.blocks[height - 1]
        return self._distort_block(block) if height == newest else block

    def _get_tip(self) -> int:
        """The height of the newest header."""
        return self._get_height() + (self._lies.clock_ahead_s > 0)

    def _make_future_block(self) -> CometBlock:
        comet = self._chain.comet
        time_ns = int(self._chain.clock() + self._lies.clock_ahead_s) * NANOSECONDS
        header = comet.make_header(time_ns, (), self._chain.app_hashes[-1], comet.head.header.last_results_hash)
        return comet.make_block(header, ())

    def _distort_block(self, block: CometBlock) -> CometBlock:
        lies = self._lies
        if lies.equivocate:
            return self._chain.fork(block.height)[1]
        if lies.forge_state:
            return replace(block, header=replace(block.header, app_hash=b"\x11" * 32))
        votes = list(block.commit.signatures)
        if lies.forge_signature:
            votes = [replace(v, signature=v.signature[:-1] + bytes([v.signature[-1] ^ 1])) for v in votes]
        if lies.too_few:
            votes = _cut_votes(block, votes)
        return replace(block, commit=replace(block.commit, signatures=tuple(votes)))

    def _get_status(self) -> dict[str, Any]:
        newest, first = self._get_block({}), self._chain.comet.blocks[0]
        # what a node tells beside its newest block is the hash that the application gave for it, which the next header carries
        height = newest.height
        member = newest.validators.validators[0]
        return {
            "node_info": {
                "protocol_version": {"p2p": "8", "block": "11", "app": "0"},
                "id": sha256(self._name.encode()).hexdigest()[:40],
                "listen_addr": "tcp://0.0.0.0:26656",
                "network": self._lies.chain_id or self._chain.chain_id,
                "version": NODE_VERSION,
                "channels": "402021222330386061",
                "moniker": self._name,
                "other": {"tx_index": "off" if self._lies.no_index else "on", "rpc_address": "tcp://0.0.0.0:26657"},
            },
            "sync_info": {
                "latest_block_hash": _hex(newest.hash),
                "latest_app_hash": _hex(self._chain.app_hashes[min(height, self._chain.height) - 1]),
                "latest_block_height": str(height),
                "latest_block_time": format_time(newest.header.time_ns),
                "earliest_block_hash": _hex(first.hash),
                "earliest_app_hash": _hex(first.header.app_hash),
                "earliest_block_height": "1",
                "earliest_block_time": format_time(first.header.time_ns),
                "catching_up": False,
            },
            "validator_info": {
                key: value for key, value in _describe_validator(member).items() if key != "proposer_priority"
            },
        }

    def _get_info(self) -> dict[str, Any]:
        height = self._get_height()
        return {
            "response": {
                "data": "WasmApp",
                "last_block_height": str(height),
                "last_block_app_hash": _base64(self._chain.app_hashes[height - 1]),
            }
        }

    # ------------------------------------------------------------------ blocks

    def _get_commit(self, params: Mapping[str, Any]) -> dict[str, Any]:
        block = self._get_block(params)
        signed = {"header": describe_header(block.header), "commit": describe_commit(block.commit)}
        return {"signed_header": signed, "canonical": block.height < self._get_tip()}

    def _get_validators(self, params: Mapping[str, Any]) -> dict[str, Any]:
        height = self._read_height(params, self._get_tip() + 1)
        members = self._chain.comet.get_set(height).validators
        start, size = _read_page(params, len(members))
        found = members[start : start + size]
        return {
            "block_height": str(height),
            "validators": [_describe_validator(member) for member in found],
            "count": str(len(found)),
            "total": str(len(members)),
        }

    def _describe_block(self, params: Mapping[str, Any]) -> dict[str, Any]:
        block = self._get_block(params)
        return {
            "block_id": _describe_block_id(block.commit.block_id),
            "block": {
                "header": describe_header(block.header),
                "data": {"txs": [_base64(raw) for raw in block.transactions]},
                "evidence": {"evidence": []},
                "last_commit": describe_commit(block.last_commit),
            },
        }

    def _get_block_results(self, params: Mapping[str, Any]) -> dict[str, Any]:
        height = self._read_height(params, self._get_height())
        results = [self._distort_result(result) for result in self._chain.results[height - 1]]
        if self._lies.drop_events:
            results = [replace(r, events=tuple(e for e in r.events if e[0] not in VAULT_EVENTS)) for r in results]
        return {
            "height": str(height),
            "txs_results": [_describe_result(result) for result in results] or None,
            "finalize_block_events": [_describe_event(event) for event in self._chain.block_events[height - 1]],
            "validator_updates": None,
            "consensus_param_updates": None,
            "app_hash": _base64(self._chain.app_hashes[height - 1]),
        }

    # ------------------------------------------------------------------ transactions

    def _get_tx(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self._verify_indexed()
        name = _read_base64(params.get("hash"), "hash")
        place = self._chain.get_place(name)
        if place is None or place[0] > self._get_height():
            raise _RpcFailure(f"tx ({_hex(name)}) not found")
        return self._describe_tx(place)

    def _describe_tx(self, place: tuple[int, int]) -> dict[str, Any]:
        height, index = place
        raw = self._chain.comet.blocks[height - 1].transactions[index]
        return {
            "hash": _hex(sha256(raw).digest()),
            "height": str(height),
            "index": index,
            "tx_result": _describe_result(self._distort_result(self._chain.results[height - 1][index])),
            "tx": _base64(raw),
        }

    def _verify_indexed(self) -> None:
        if self._lies.no_index:
            raise _RpcFailure("transaction indexing is disabled")

    def _search(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self._verify_indexed()
        conditions = _read_query(params.get("query"))
        first, last = 1, self._get_height()
        wanted: list[tuple[str, str]] = []
        for name, operator, text in conditions:
            if name != "tx.height":
                if operator != "=":
                    raise _RpcFailure(f"failed to parse query: {operator} needs a number")
                wanted.append((name, text))
                continue
            number = _read_integer(text, "tx.height")
            first = max(first, number + (operator == ">")) if operator in ("=", ">=", ">") else first
            last = min(last, number - (operator == "<")) if operator in ("=", "<=", "<") else last
        places = [
            (height, index)
            for height in range(first, last + 1)
            for index, result in enumerate(self._chain.results[height - 1])
            if self._is_match(height, index, result, wanted)
        ]
        places = self._distort_search(places, wanted)
        order = params.get("order_by", "")
        if order not in ("", "asc", "desc"):
            raise _RpcFailure("expected order_by to be either `asc` or `desc` or empty")
        if order == "desc":
            places.reverse()
        start, size = _read_page(params, len(places))
        found = [self._describe_tx(place) for place in places[start : start + size]]
        return {"txs": found, "total_count": str(len(places))}

    def _is_match(self, height: int, index: int, result: TxResult, wanted: Sequence[tuple[str, str]]) -> bool:
        """Ask whether a transaction has, for every condition, an attribute of that name and value."""
        for name, text in wanted:
            if name == "tx.hash":
                if _hex(sha256(self._chain.comet.blocks[height - 1].transactions[index]).digest()) != text.upper():
                    return False
            elif not any(
                f"{kind}.{key}" == name and value == text for kind, pairs in result.events for key, value in pairs
            ):
                return False
        return True

    def _distort_search(
        self, places: list[tuple[int, int]], wanted: Sequence[tuple[str, str]]
    ) -> list[tuple[int, int]]:
        lies = self._lies
        if not any(name.split(".")[0] in VAULT_EVENTS for name, _ in wanted):
            return places
        if lies.drop_events:
            return []
        if lies.drop_event_every:
            places = [place for number, place in enumerate(places, 1) if number % lies.drop_event_every]
        return places[::-1] if lies.reorder_events else places

    def _distort_result(self, result: TxResult) -> TxResult:
        if self._lies.undo_results:
            return replace(result, code=5, codespace="wasm", log="execute wasm contract failed")
        if not self._lies.forge_events:
            return result
        return replace(result, events=tuple(_forge_event(event) for event in result.events))

    def _broadcast(self, params: Mapping[str, Any]) -> dict[str, Any]:
        raw = _read_base64(params.get("tx"), "tx")
        name = sha256(raw).digest()
        result = TxResult(0, b"", "", "", 0, 0, ())
        if not self._lies.drop_sent:
            try:
                name, result = self._chain.send_raw(raw)
            except Rejected as error:
                raise _RpcFailure(error.what) from error
        return {
            "code": result.code,
            "data": _hex(result.data),
            "log": result.log,
            "codespace": result.codespace,
            "hash": _hex(name),
        }

    def _get_pool(self, params: Mapping[str, Any]) -> dict[str, Any]:
        limit = min(max(_read_integer(params.get("limit", DEFAULT_PAGE), "limit"), 1), MAX_PAGE)
        pool = [] if self._lies.stall_height is not None else [tx.raw for tx in self._chain.pool.values()]
        return {
            "n_txs": str(min(len(pool), limit)),
            "total": str(len(pool)),
            "total_bytes": str(sum(map(len, pool))),
            "txs": [_base64(raw) for raw in pool[:limit]],
        }

    def _count_pool(self) -> dict[str, Any]:
        answer = self._get_pool({})
        return answer | {"n_txs": answer["total"], "txs": None}

    # ------------------------------------------------------------------ state

    def _query(self, params: Mapping[str, Any]) -> dict[str, Any]:
        path = params.get("path", "")
        try:
            data = bytes.fromhex(params.get("data", ""))
        except (TypeError, ValueError) as error:
            raise _RpcFailure("error converting json params to arguments", INVALID_PARAMS, "Invalid params") from error
        newest = self._get_height()
        height = _read_integer(params.get("height", 0), "height") or newest
        try:
            if path in self._routes:
                answer = self._query_route(path, data, height, newest)
            else:
                answer = self._query_store(str(path), data, height, newest, prove=bool(params.get("prove")))
        except AppError as error:
            answer = {"code": error.code, "log": error.what, "codespace": error.codespace}
            if path in self._routes and error.code != 26:
                answer["height"] = str(height)
        empty = {"code": 0, "log": "", "info": "", "index": "0", "key": None, "value": None, "proofOps": None}
        return {"response": empty | {"height": "0", "codespace": ""} | answer}

    def _query_store(self, path: str, key: bytes, height: int, newest: int, *, prove: bool) -> dict[str, Any]:
        match = re.fullmatch(r"/store/([a-z]+)/key", path)
        if match is None:
            raise AppError("sdk", 6, "unknown query path: unknown request")
        if prove and height <= 1:
            text = "cannot query with proof when height <= 1; please provide a valid height: invalid request"
            raise AppError("sdk", 18, text)
        store = match[1].encode()
        if store not in self._chain.app.trees:
            raise AppError("store", 4, f"no such store: {match[1]}: unknown request")
        if not 0 < height <= newest:
            if prove:
                text = "proof is unexpectedly empty; ensure height has not been pruned: invalid request"
                raise AppError("store", 7, text)
            return {"log": "version does not exist", "height": str(height), "key": _base64(key)}
        value, proofs = self._chain.app.prove(height, store, key)
        if self._lies.forge_head and value and key.endswith(OUTBOX_HEAD_KEY):
            value = value[:-1] + bytes([value[-1] ^ 1])
        if len(key) == PACKET_KEY_BYTES and key[-9:-8] == PACKET_TABLE:
            value = self._distort_record(int.from_bytes(key[-8:], "big"), value)
        answer: dict[str, Any] = {
            "key": _base64(key),
            "value": _base64(value) if value else None,
            "height": str(height),
        }
        if prove:
            steps = zip(("ics23:iavl", "ics23:simple"), (key, store), proofs, strict=True)
            answer["proofOps"] = {
                "ops": [
                    {"type": kind, "key": _base64(name), "data": _base64(encode_entry(proof))}
                    for kind, name, proof in steps
                ]
            }
        return answer

    def _distort_record(self, number: int, value: bytes | None) -> bytes | None:
        """A packet by its number is withheld and forged as its event is."""
        lies = self._lies
        is_left_out = bool(lies.drop_event_every) and not number % lies.drop_event_every
        if lies.drop_events or lies.undo_results or is_left_out or not value:
            return None
        return value[:-1] + bytes([value[-1] ^ 1]) if lies.forge_events else value

    def _query_route(self, path: str, data: bytes, height: int, newest: int) -> dict[str, Any]:
        if height > newest or height < 0:
            text = "cannot query with height in the future; please provide a valid height: invalid height"
            raise AppError("sdk", 26, text)
        try:
            answer = self._routes[path](self._chain.app.make_query_context(height), data)
        except DecodeError as error:
            raise AppError("sdk", 18, f"{str(error)[:200]}: invalid request") from error
        except OutOfGas as error:
            raise AppError("sdk", 11, "out of gas in location: wasm contract: out of gas") from error
        except AppError as error:
            if error.codespace == "sdk" and error.code in (18, 22):
                raise
            raise AppError("sdk", 6, f"{error.what}: unknown request") from error
        return {"value": _base64(answer.SerializeToString()), "height": str(height)}

    def _answer_account(self, context: Context, data: bytes) -> Message:
        address = QueryAccountRequest.FromString(data).address
        account = self._chain.app.get_account(context, self._chain.app.decode(address))
        if account is None:
            text = f"rpc error: code = NotFound desc = account {address} not found: key not found"
            raise AppError("sdk", 22, text)
        url = "/cosmos.auth.v1beta1.BaseAccount"
        return QueryAccountResponse(account=AnyMessage(type_url=url, value=account.SerializeToString()))

    def _answer_balance(self, context: Context, data: bytes) -> Message:
        asked = QueryBalanceRequest.FromString(data)
        app = self._chain.app
        amount = app.get_balance(context, app.decode(asked.address), asked.denom)
        return QueryBalanceResponse(balance=Coin(denom=asked.denom, amount=str(amount)))

    def _answer_config(self, _: Context, __: bytes) -> Message:
        app = self._chain.app
        price = app.min_gas_price
        whole, rest = divmod(price.numerator * 10**18 // price.denominator, 10**18)
        return ConfigResponse(minimum_gas_price=f"{whole}.{rest:018d}{app.denom}")

    def _answer_simulate(self, _: Context, data: bytes) -> Message:
        raw = SimulateRequest.FromString(data).tx_bytes
        if not raw:
            raise AppError(
                "sdk", 18, "rpc error: code = InvalidArgument desc = empty txBytes is not allowed: invalid request"
            )
        app = self._chain.app
        try:
            result = app.simulate(self._chain.get_check_context().branch(GasMeter()), raw)
        except AppError as error:
            raise AppError(error.codespace, error.code, f"rpc error: code = Unknown desc = {error.what}") from error
        answers = TxMsgData.FromString(result.data)
        return SimulateResponse(
            gas_info=GasInfo(gas_wanted=0, gas_used=result.gas_used),
            result=Result(data=result.data, msg_responses=answers.msg_responses),
        )

    def _answer_smart(self, context: Context, data: bytes) -> Message:
        asked = QuerySmartContractStateRequest.FromString(data)
        app = self._chain.app
        value = app.query_smart(context, app.decode(asked.address), asked.query_data)
        if self._lies.forge_sequence and asked.query_data == b'{"cursors":{}}':
            found = json.loads(value)
            found["outbox_sequence"] += self._lies.forge_sequence
            value = json.dumps(found, separators=(",", ":")).encode()
        return QuerySmartContractStateResponse(data=value)

    def _answer_raw(self, context: Context, data: bytes) -> Message:
        asked = QueryRawContractStateRequest.FromString(data)
        app = self._chain.app
        contract = app.decode(asked.address)
        app.get_contract_info(context, contract)
        value = ContractStorage(context, contract).get(asked.query_data)
        return QueryRawContractStateResponse(data=value or b"")

    def _answer_contract(self, context: Context, data: bytes) -> Message:
        address = QueryContractInfoRequest.FromString(data).address
        app = self._chain.app
        info = app.get_contract_info(context, app.decode(address))
        return QueryContractInfoResponse(address=address, contract_info=info)

    def _answer_code(self, context: Context, data: bytes) -> Message:
        number = int(QueryCodeRequest.FromString(data).code_id)
        app = self._chain.app
        info = app.get_code_info(context, number)
        told = CodeInfoResponse(
            code_id=number,
            creator=info.creator,
            data_hash=info.code_hash,
            instantiate_permission=info.instantiate_config,
        )
        return QueryCodeResponse(code_info=told, data=app.codes[info.code_hash])


# ---- requests ---------------------------------------------------------------------------------------------------------


def _read_integer(value: Any, what: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,19}", value, re.ASCII):
        return int(value)
    raise _RpcFailure(f"error converting json params to arguments: {what}", INVALID_PARAMS, "Invalid params")


def _read_base64(value: Any, what: str) -> bytes:
    try:
        if len(value) <= MAX_REQUEST_BYTES:
            return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        text = f"error converting json params to arguments: {what}"
        raise _RpcFailure(text, INVALID_PARAMS, "Invalid params") from error
    raise _RpcFailure("http: request body too large", INVALID_PARAMS, "Invalid params")


def _read_page(params: Mapping[str, Any], total: int) -> tuple[int, int]:
    """(first element, number of elements) of a page."""
    size = _read_integer(params.get("per_page") or DEFAULT_PAGE, "per_page")
    size = DEFAULT_PAGE if size < 1 else min(size, MAX_PAGE)
    pages = max(-(-total // size), 1)
    page = _read_integer(params.get("page") or 1, "page")
    if not 1 <= page <= pages:
        raise _RpcFailure(f"page should be within [1, {pages}] range, given {page}")
    return (page - 1) * size, size


def _read_query(value: Any) -> list[tuple[str, str, str]]:
    """(name, operator, value) of each condition of a search."""
    if not isinstance(value, str) or not value:
        raise _RpcFailure("failed to parse query: empty")
    if len(value) > MAX_QUERY_LENGTH:
        raise _RpcFailure("maximum query length exceeded")
    found = []
    for part in value.split(" AND "):
        match = _CONDITION.fullmatch(part)
        if match is None:
            raise _RpcFailure(f"failed to parse query: {part[:100]}")
        found.append((match[1], match[2], match[3] if match[3] is not None else match[4]))
    return found


# ---- JSON forms -------------------------------------------------------------------------------------------------------


def _hex(data: bytes) -> str:
    return data.hex().upper()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def format_time(time_ns: int) -> str:
    """RFC 3339 with up to nine digits behind the point, as Go writes it."""
    seconds, nanos = divmod(time_ns, NANOSECONDS)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{moment.year:04d}-{moment:%m-%dT%H:%M:%S}{fraction}Z"


def _describe_block_id(block_id: BlockId) -> dict[str, Any]:
    return {
        "hash": _hex(block_id.hash),
        "parts": {"total": block_id.parts.total, "hash": _hex(block_id.parts.hash)},
    }


def describe_header(header: Header) -> dict[str, Any]:
    """The JSON of a header."""
    version = {"block": str(header.version_block)} | ({"app": str(header.version_app)} if header.version_app else {})
    return {
        "version": version,
        "chain_id": header.chain_id,
        "height": str(header.height),
        "time": format_time(header.time_ns),
        "last_block_id": _describe_block_id(header.last_block_id),
        **{name: _hex(getattr(header, name)) for name in HEADER_BYTES},
    }


def describe_commit(commit: Commit) -> dict[str, Any]:
    """The JSON of a commit."""
    return {
        "height": str(commit.height),
        "round": commit.round,
        "block_id": _describe_block_id(commit.block_id),
        "signatures": [
            {
                "block_id_flag": int(vote.flag),
                "validator_address": _hex(vote.address),
                "timestamp": format_time(vote.time_ns),
                "signature": _base64(vote.signature) if vote.signature else None,
            }
            for vote in commit.signatures
        ],
    }


def _describe_validator(member: Validator) -> dict[str, Any]:
    kinds = {KeyType.ED25519: "tendermint/PubKeyEd25519", KeyType.SECP256K1: "tendermint/PubKeySecp256k1"}
    return {
        "address": _hex(compute_address(member.key)),
        "pub_key": {"type": kinds[member.key.kind], "value": _base64(member.key.data)},
        "voting_power": str(member.power),
        "proposer_priority": "0",
    }


def _describe_event(event: Event) -> dict[str, Any]:
    kind, attributes = event
    return {"type": kind, "attributes": [{"key": k, "value": v, "index": True} for k, v in attributes]}


def _describe_result(result: TxResult) -> dict[str, Any]:
    return {
        "code": result.code,
        "data": _base64(result.data) if result.data else None,
        "log": result.log,
        "info": "",
        "gas_wanted": str(result.gas_wanted),
        "gas_used": str(result.gas_used),
        "events": [_describe_event(event) for event in result.events],
        "codespace": result.codespace,
    }


def _forge_event(event: Event) -> Event:
    """Change the last byte of an outbox packet: the amount of a deposit, still well formed."""
    kind, attributes = event
    if kind != OUTBOX_EVENT:
        return event

    def forge(value: str) -> str:
        data = base64.b64decode(value)
        return _base64(data[:-1] + bytes([data[-1] ^ 1]))

    return kind, tuple((key, forge(value) if key == "value" else value) for key, value in attributes)


def _cut_votes(block: CometBlock, votes: Sequence[CommitSig]) -> list[CommitSig]:
    """Votes of which the last ones are absent, so that no two thirds of the power are left."""
    total, signed = block.validators.total_power, 0
    kept: list[CommitSig] = []
    for member, vote in zip(block.validators.validators, votes, strict=True):
        is_kept = vote.flag == Flag.COMMIT and not is_above(signed + member.power, total, TWO_THIRDS)
        signed += member.power if is_kept else 0
        kept.append(vote if is_kept else CommitSig(Flag.ABSENT))
    return kept
