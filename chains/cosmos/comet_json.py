"""Answers of CometBFT's RPC -> values of ours, with limits; what the light client needs is parsed in `codec`. Pure.

An answer is a claim: everything here checks form, nothing here believes. Events are read only from transactions that succeeded, of the types
that the vault emits, and only with the vault's own address, which the chain writes beside every event (incident E2: another contract may
emit events of the same type).

Source: CometBFT RPC specification v0.38 and v0.39; wasmd EVENTS.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chains.cosmos.codec import (
    get_list,
    get_object,
    parse_base64,
    parse_hex,
    parse_integer,
    parse_proof,
    parse_time,
    refuse_json,
)
from chains.cosmos.types import Proof
from chains.cosmos.vault_json import parse_u64
from messages.bodies import ENCODING, PORT, VERSION
from messages.errors import Rejected
from messages.packet import MAX_VALUE_BYTES, Packet, Payload

OUTBOX_EVENT = "wasm-optsettle_out"
INBOX_EVENT = "wasm-optsettle_in"
ADDRESS_KEY = "_contract_address"
VALIDATORS_PER_PAGE = 100
MAX_VALIDATOR_PAGES = 100
TRANSACTIONS_PER_PAGE = 100
MAX_BLOCK_TRANSACTIONS = 50_000
MAX_EVENTS = 1 << 18
"""Events of one transaction, as many as an answer may have objects: whoever calls the vault writes as many beside its own as he pays for."""
MAX_ATTRIBUTES = 256
MAX_TEXT = 512


@dataclass(frozen=True)
class Status:
    """Where a node says it stands; ``time_ns`` of its newest block."""

    network: str
    height: int
    time_ns: int
    earliest_height: int


@dataclass(frozen=True)
class QueryAnswer:
    """What a node's application answers. ``code`` 0: good; otherwise ``log`` says why not."""

    code: int
    log: str
    value: bytes
    height: int
    proof: Proof | None


@dataclass(frozen=True)
class PacketEvent:
    """A packet as the vault's event shows it; ``transaction`` names it within one answer."""

    is_outbox: bool
    packet: Packet
    height: int
    transaction: bytes


@dataclass(frozen=True)
class TxResult:
    """What became of a transaction that is in a block: code 0 succeeded."""

    hash: bytes
    height: int
    code: int
    log: str


def parse_status(value: object) -> Status:
    """Return the answer to `status`; Rejected ("bad_json")."""
    found = get_object(value, "status")
    info = get_object(found.get("sync_info"), "sync info")
    network = get_object(found.get("node_info"), "node info").get("network")
    if not isinstance(network, str) or len(network) > 256:
        raise refuse_json("network", str(network)[:80])
    return Status(
        network,
        _parse_height(info.get("latest_block_height")),
        parse_time(info.get("latest_block_time"), "newest block time"),
        _parse_height(info.get("earliest_block_height", "1")),
    )


def parse_query(value: object) -> QueryAnswer:
    """Return the answer to `abci_query`; Rejected ("bad_json")."""
    found = get_object(get_object(value, "answer").get("response"), "response")
    ops = found.get("proofOps")
    return QueryAnswer(
        parse_integer(found.get("code", 0), "code"),
        _get_text(found.get("log")),
        parse_base64(found.get("value"), "value"),
        _parse_height(found.get("height", "0")),
        None if ops is None else parse_proof(ops),
    )


def parse_validator_page(value: object, height: int) -> tuple[list[Any], int]:
    """Return (members as JSON, total number) of one page of `validators`; Rejected ("bad_json", "wrong_height")."""
    found = get_object(value, "validators")
    got = _parse_height(found.get("block_height"))
    if got != height:
        raise Rejected("validators of another height", got=got, expected=height, reason="wrong_height")
    total = parse_integer(found.get("total"), "number of validators")
    if not 0 < total <= VALIDATORS_PER_PAGE * MAX_VALIDATOR_PAGES:
        raise refuse_json("number of validators", total)
    return get_list(found.get("validators"), "validators", VALIDATORS_PER_PAGE), total


def parse_signed_header(value: object) -> Mapping[str, Any]:
    """Return the signed header of an answer to `commit`, still JSON; Rejected ("bad_json")."""
    return get_object(get_object(value, "commit").get("signed_header"), "signed header")


def parse_tx_search(value: object, address: str, first: int, last: int) -> tuple[list[PacketEvent], int, int]:
    """Return (the vault's packets, transactions on this page, transactions in total) of one page of `tx_search`.

    Raises Rejected: "bad_json", "out_of_range" (a transaction of a height that was not asked for), and what the events say wrongly.
    """
    found = get_object(value, "tx_search")
    total = parse_integer(found.get("total_count"), "number of transactions")
    if total < 0:
        raise refuse_json("number of transactions", total)
    entries = get_list(found.get("txs"), "transactions", TRANSACTIONS_PER_PAGE)
    events: list[PacketEvent] = []
    for item in entries:
        entry = get_object(item, "transaction")
        height = _parse_height(entry.get("height"))
        if not first <= height <= last:
            raise Rejected(
                "a transaction of another height", got=height, expected=f"{first} to {last}", reason="out_of_range"
            )
        name = parse_hex(entry.get("hash"), "transaction hash")
        events += _parse_result(entry.get("tx_result"), address, height, name)
    return events, len(entries), total


def parse_block_results(value: object, address: str, height: int) -> list[PacketEvent]:
    """Return the vault's packets in an answer to `block_results`; Rejected ("bad_json", "out_of_range")."""
    found = get_object(value, "block_results")
    got = _parse_height(found.get("height"))
    if got != height:
        raise Rejected("results of another height", got=got, expected=height, reason="out_of_range")
    events: list[PacketEvent] = []
    for number, result in enumerate(get_list(found.get("txs_results"), "results", MAX_BLOCK_TRANSACTIONS)):
        events += _parse_result(result, address, height, height.to_bytes(8, "big") + number.to_bytes(4, "big"))
    return events


def parse_tx(value: object) -> TxResult:
    """Return the answer to `tx`; Rejected ("bad_json")."""
    found = get_object(value, "tx")
    result = get_object(found.get("tx_result"), "result")
    return TxResult(
        parse_hex(found.get("hash"), "transaction hash"),
        _parse_height(found.get("height")),
        parse_integer(result.get("code", 0), "code"),
        _get_text(result.get("log")),
    )


def parse_broadcast(value: object) -> TxResult:
    """Return the answer to `broadcast_tx_sync`; its height is 0; Rejected ("bad_json")."""
    found = get_object(value, "broadcast_tx_sync")
    code = parse_integer(found.get("code", 0), "code")
    return TxResult(parse_hex(found.get("hash"), "transaction hash"), 0, code, _get_text(found.get("log")))


# ---- events -----------------------------------------------------------------------------------------------------------


def _parse_result(value: object, address: str, height: int, transaction: bytes) -> Iterator[PacketEvent]:
    """The vault's packets in a transaction's result; none where it failed: what it did was undone."""
    result = get_object(value, "result")
    events = get_list(result.get("events"), "events", MAX_EVENTS)
    if parse_integer(result.get("code", 0), "code") != 0:
        return
    for item in events:
        event = get_object(item, "event")
        kind = event.get("type")
        # strict with the vault's own events only: what another contract writes beside them must not make an honest answer unreadable
        if kind in (OUTBOX_EVENT, INBOX_EVENT) and _names_contract(event.get("attributes"), address):
            attributes = _parse_attributes(event.get("attributes"))
            yield PacketEvent(kind == OUTBOX_EVENT, _parse_packet(attributes), height, transaction)


def _names_contract(attributes: object, address: str) -> bool:
    """Tell whether the chain wrote this contract's address beside an event; no contract can write that key itself (wasmd EVENTS.md)."""
    return isinstance(attributes, list) and any(
        isinstance(item, Mapping) and item.get("key") == ADDRESS_KEY and item.get("value") == address
        for item in attributes
    )


def _parse_attributes(value: object) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in get_list(value, "attributes", MAX_ATTRIBUTES):
        attribute = get_object(item, "attribute")
        key, text = attribute.get("key"), attribute.get("value")
        if not isinstance(key, str) or not isinstance(text, str | None):
            raise refuse_json("an attribute is two texts", str(key)[:80])
        if key in found:
            raise refuse_json("an attribute appears twice", key[:80])
        found[key] = text or ""
    return found


def _parse_packet(attributes: Mapping[str, str]) -> Packet:
    def get(name: str) -> str:
        if name not in attributes:
            raise refuse_json("an event of the vault without an attribute", name)
        return attributes[name]

    value = parse_base64(get("value"), "payload value", MAX_VALUE_BYTES)
    clients = [get(name) for name in ("source_client", "destination_client")]
    if any(len(client) > MAX_TEXT for client in clients):
        raise refuse_json("a client id is too long", [client[:80] for client in clients])
    return Packet(
        parse_u64(get("sequence"), "sequence"),
        clients[0],
        clients[1],
        parse_u64(get("timeout"), "timeout"),
        (Payload(PORT, PORT, VERSION, ENCODING, value),),
    )


def build_search(address: str, first: int, last: int) -> str:
    """Return the query of `tx_search` for the vault's outbox packets in blocks ``first`` to ``last``, both included."""
    return f"{OUTBOX_EVENT}.{ADDRESS_KEY}='{address}' AND tx.height>={first} AND tx.height<={last}"


def _parse_height(value: object) -> int:
    height = parse_integer(value, "height")
    if height < 0:
        raise refuse_json("a negative height", height)
    return height


def _get_text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise refuse_json("a log is text", str(value)[:80])
    return value if len(value) <= 2 * MAX_TEXT else f"{value[:MAX_TEXT]} ... {value[-MAX_TEXT:]}"
