"""Small CosmWasm contracts in the text form of WebAssembly, for what the real contracts never do."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import wasmtime

IMPORTS = {
    "db_read": "(param i32) (result i32)",
    "db_write": "(param i32 i32)",
    "db_remove": "(param i32)",
    "db_scan": "(param i32 i32 i32) (result i32)",
    "db_next": "(param i32) (result i32)",
    "db_next_key": "(param i32) (result i32)",
    "db_next_value": "(param i32) (result i32)",
    "addr_validate": "(param i32) (result i32)",
    "addr_canonicalize": "(param i32 i32) (result i32)",
    "addr_humanize": "(param i32 i32) (result i32)",
    "secp256k1_verify": "(param i32 i32 i32) (result i32)",
    "secp256k1_recover_pubkey": "(param i32 i32 i32) (result i64)",
    "secp256r1_verify": "(param i32 i32 i32) (result i32)",
    "ed25519_verify": "(param i32 i32 i32) (result i32)",
    "ed25519_batch_verify": "(param i32 i32 i32) (result i32)",
    "debug": "(param i32)",
    "abort": "(param i32)",
    "query_chain": "(param i32) (result i32)",
}
OK = b'{"ok":{"messages":[],"attributes":[],"events":[],"data":null}}'
HEAP = 32_768


def quote(data: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in data)


def lay_out(regions: Mapping[str, bytes], room: int = 0) -> tuple[dict[str, int], str]:
    """Where each region lies, and the data section that puts it there; ``room``: capacity beyond the length."""
    places: dict[str, int] = {}
    parts = []
    at = 64
    for name, data in regions.items():
        head = b"".join(number.to_bytes(4, "little") for number in (at + 12, len(data) + room, len(data)))
        parts.append(f'(data (i32.const {at}) "{quote(head + data)}")')
        places[name] = at
        at += 12 + len(data) + room + (-(len(data) + room) % 4)
    assert at < HEAP
    return places, "\n".join(parts)


def make_wat(
    *,
    execute: str = "",
    query: str = "",
    reply: str = "",
    regions: Mapping[str, bytes] | None = None,
    room: int = 0,
    memory: str = '(memory (export "memory") 1)',
    more: str = "",
) -> bytes:
    """A contract whose entry points run the given instructions and then answer "ok".

    ``$ok`` is the answer's region, ``$<name>`` each of ``regions``; in `execute`, `query` and `reply` the message's region is ``$msg``, ``$n`` is a
    number to use, and ``(return ...)`` answers something else.
    """
    places, data = lay_out({"ok": OK, "word": b"\0" * 4, **(regions or {})}, room)
    names = "\n".join(f"(global ${name} i32 (i32.const {at}))" for name, at in places.items())
    imports = "\n".join(f'(import "env" "{name}" (func ${name} {kind}))' for name, kind in IMPORTS.items())
    return bytes(
        wasmtime.wat2wasm(
            f"""(module
            {imports}
            {memory}
            {names}
            (global $heap (mut i32) (i32.const {HEAP}))
            {data}
            (func (export "interface_version_8"))
            (func (export "deallocate") (param i32))
            (func $allocate (export "allocate") (param $size i32) (result i32) (local $at i32)
                (local.set $at (global.get $heap))
                (global.set $heap (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 15)) (i32.const -4)))
                (block $enough
                    (br_if $enough (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
                    (drop (memory.grow (i32.const 16))))
                (i32.store (local.get $at) (i32.add (local.get $at) (i32.const 12)))
                (i32.store offset=4 (local.get $at) (local.get $size))
                (i32.store offset=8 (local.get $at) (i32.const 0))
                (local.get $at))
            (func (export "instantiate") (param $env i32) (param $info i32) (param $msg i32) (result i32) (global.get $ok))
            (func (export "execute") (param $env i32) (param $info i32) (param $msg i32) (result i32) (local $n i32)
                {execute}
                (global.get $ok))
            (func (export "query") (param $env i32) (param $msg i32) (result i32) (local $n i32)
                {query}
                (global.get $ok))
            (func (export "reply") (param $env i32) (param $msg i32) (result i32) (local $n i32)
                {reply}
                (global.get $ok))
            {more}
            )"""
        )
    )


def keep_word(value: str) -> str:
    """Instructions that store an i32 under the key "out"; the regions must name ``out``."""
    return f"""(i32.store (i32.add (global.get $word) (i32.const 12)) {value})
        (call $db_write (global.get $out) (global.get $word))"""


@cache
def get_puppet() -> bytes:
    """A contract that keeps each message under "last" and answers with the message itself; replies it keeps under "reply".

    So a test writes the contract's answer, messages to other contracts included. A query is answered with its own message too.
    """
    return make_wat(
        execute="(call $db_write (global.get $last) (local.get $msg)) (return (local.get $msg))",
        query="(return (local.get $msg))",
        reply="(call $db_write (global.get $reply) (local.get $msg))",
        regions={"last": b"last", "reply": b"reply"},
    )


@cache
def get_asker() -> bytes:
    """A contract that puts each message to the chain as a query and keeps what it is answered under "answer"."""
    return make_wat(
        execute="(call $db_write (global.get $answer) (call $query_chain (local.get $msg)))",
        regions={"answer": b"answer"},
    )
