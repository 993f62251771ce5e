"""The host of CosmWasm contracts: what it lets a contract do, what it tells it, and where it stops it."""

from __future__ import annotations

import base64
import json
from hashlib import sha256

import pytest
from coincurve import PrivateKey

from chains.cosmos import ed25519
from chains.cosmos.address import encode_address
from chains.cosmos.wasm_vm import (
    MAX_CODE_BYTES,
    MAX_KEY_BYTES,
    MAX_MESSAGE_BYTES,
    ContractError,
    GasMeter,
    MemoryStorage,
    OutOfGas,
    WasmCode,
    WasmTrap,
)
from messages.errors import Rejected
from tests.chains.cosmos_wat import OK, get_asker, get_puppet, keep_word, make_wat

ENV = {
    "block": {"height": 12, "time": "1571797419879305533", "chain_id": "sim-1"},
    "transaction": {"index": 0, "hash": ""},
    "contract": {"address": encode_address(bytes(32), "wasm")},
}
INFO = {"sender": encode_address(bytes(20), "wasm"), "funds": []}


def refuse_query(request):
    raise AssertionError(request)


def execute(wasm, msg=b"{}", storage=None, querier=refuse_query, meter=None):
    return WasmCode(wasm).execute(MemoryStorage() if storage is None else storage, ENV, INFO, msg, querier, meter)


def run_word(body, regions):
    """The i32 that instructions leave, as the host's answer to them."""
    storage = MemoryStorage()
    execute(make_wat(execute=keep_word(body), regions={"out": b"out", **regions}), storage=storage)
    return int.from_bytes(storage[b"out"], "little")


# ---- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_is_what_stands_under_ok():
    assert execute(get_puppet(), b'{"ok":{"messages":[],"data":"eHk="}}') == {"messages": [], "data": "eHk="}


def test_an_error_answer_is_an_error_with_its_first_word():
    with pytest.raises(ContractError) as caught:
        execute(get_puppet(), b'{"error":"sequence 3 is not 2"}')
    assert caught.value.reason == "sequence"
    assert caught.value.what == "sequence 3 is not 2"


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{}", b'{"ok":1}', b'{"ok":{},"error":""}', b'{"yes":{}}', b"[" * 100_000, b"\xff", b'{"ok":[]}'],
)
def test_an_answer_that_is_none_traps(answer):
    with pytest.raises(WasmTrap):
        execute(get_puppet(), answer)


def test_a_query_answers_bytes_and_a_reply_reads_its_message():
    code = WasmCode(get_puppet())
    storage = MemoryStorage()
    msg = b'{"ok":"' + base64.b64encode(b'{"a":1}') + b'"}'
    assert code.query(storage, ENV, msg, refuse_query) == b'{"a":1}'
    with pytest.raises(WasmTrap):
        code.query(storage, ENV, b'{"ok":"a"}', refuse_query)
    code.reply(storage, ENV, b'{"id":7}', refuse_query)
    assert storage == {b"reply": b'{"id":7}'}


def test_an_entry_point_that_is_not_there_traps():
    code = WasmCode(get_puppet())
    assert code.has_entry_point("reply")
    assert not code.has_entry_point("migrate")
    with pytest.raises(WasmTrap) as caught:
        code._run("migrate", MemoryStorage(), (b"{}", b"{}"), refuse_query, None)
    assert caught.value.reason == "no_entry_point"


# ---- what stops a contract --------------------------------------------------------------------------------------------


def test_a_loop_without_end_uses_all_gas_and_stops():
    meter = GasMeter(10**9)
    with pytest.raises(OutOfGas):
        execute(make_wat(execute="(loop $l (br $l))"), meter=meter)
    assert meter.used == meter.limit


def test_gas_is_the_same_every_time_and_grows_with_the_work():
    def measure(turns):
        meter = GasMeter()
        body = f"(local.set $n (i32.const {turns})) (loop $l (local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $l (local.get $n)))"
        execute(make_wat(execute=body), meter=meter)
        return meter.used

    assert measure(1000) == measure(1000)
    assert measure(2000) > measure(1000) + 100_000


def test_gas_of_the_storage_counts_and_stops_the_contract_too():
    class Dear(MemoryStorage):
        def __setitem__(self, key, value):
            meter.charge(600)
            super().__setitem__(key, value)

    body = "(call $db_write (global.get $k) (global.get $k))"
    wasm = make_wat(execute=body, regions={"k": b"k"})
    meter = GasMeter()
    execute(wasm, storage=Dear(), meter=meter)
    needed = meter.used
    meter = GasMeter(needed + 200)
    execute(wasm, storage=Dear(), meter=meter)
    meter = GasMeter(needed - 200)
    with pytest.raises(OutOfGas):
        execute(wasm, storage=Dear(), meter=meter)


def test_unreachable_code_and_abort_trap():
    with pytest.raises(WasmTrap, match="unreachable"):
        execute(make_wat(execute="(unreachable)"))
    with pytest.raises(WasmTrap, match="Aborted: boom") as caught:
        execute(make_wat(execute="(call $abort (global.get $m))", regions={"m": b"boom"}))
    assert caught.value.reason == "aborted"


def test_memory_grows_to_its_limit_and_no_further():
    grow = "(memory.grow (i32.const {}))"
    assert run_word(grow.format(400), {}) == 1
    assert run_word(grow.format(512), {}) == 2**32 - 1


@pytest.mark.parametrize(
    "at",
    [
        "(i32.const 0)",  # a null region
        "(i32.const 70000000)",  # outside the memory
        "(i32.const -8)",
        "(global.get $liar)",  # offset outside
        "(global.get $long)",  # longer than its capacity
    ],
)
def test_a_region_that_is_none_traps(at):
    def head(*numbers):
        return b"".join(n.to_bytes(4, "little") for n in numbers)

    # the regions' contents are themselves heads of regions
    regions = {"liar_": head(2**31, 8, 8), "long_": head(64, 4, 8)}
    places = {"liar": "liar_", "long": "long_"}
    for name, held in places.items():
        at = at.replace(f"(global.get ${name})", f"(i32.add (global.get ${held}) (i32.const 12))")
    with pytest.raises(WasmTrap):
        execute(make_wat(execute=f"(call $db_remove {at})", regions=regions))


def test_messages_keys_and_answers_have_limits():
    with pytest.raises(WasmTrap) as caught:
        execute(get_puppet(), b" " * (MAX_MESSAGE_BYTES + 1))
    assert caught.value.reason == "message_size"
    wasm = make_wat(execute="(call $db_remove (local.get $msg))")
    execute(wasm, b"k" * MAX_KEY_BYTES)
    with pytest.raises(WasmTrap) as caught:
        execute(wasm, b"k" * (MAX_KEY_BYTES + 1))
    assert caught.value.reason == "region_size"


def test_a_query_does_not_write():
    for instruction in ("(call $db_write (global.get $k) (global.get $k))", "(call $db_remove (global.get $k))"):
        storage = MemoryStorage({b"k": b"v"})
        code = WasmCode(make_wat(query=instruction, regions={"k": b"k"}))
        with pytest.raises(WasmTrap) as caught:
            code.query(storage, ENV, b"{}", refuse_query)
        assert caught.value.reason == "read_only"
        assert storage == {b"k": b"v"}


# ---- what is uploaded -------------------------------------------------------------------------------------------------


def test_only_a_contract_of_this_interface_is_taken():
    assert WasmCode(get_puppet()).checksum == sha256(get_puppet()).digest()
    other = get_puppet().replace(b"interface_version_8", b"interface_version_7")
    for wasm in (b"", b"\0asm", get_puppet()[:-1], other, get_puppet().replace(b"db_remove", b"db_rename")):
        with pytest.raises(Rejected) as caught:
            WasmCode(wasm)
        assert caught.value.reason == "bad_code"
    with pytest.raises(Rejected) as caught:
        WasmCode(bytes(MAX_CODE_BYTES + 1))
    assert caught.value.reason == "code_size"


def test_capabilities_are_read_and_unknown_ones_refused():
    assert WasmCode(make_wat(more='(func (export "requires_iterator"))')).capabilities == {"iterator"}
    with pytest.raises(Rejected, match="requires"):
        WasmCode(make_wat(more='(func (export "requires_magic"))'))


@pytest.mark.parametrize(
    ("memory", "more"),
    [
        ('(memory (export "memory") 1 2 shared)', ""),
        ('(memory (export "memory") 1)', "(func (drop (v128.const i64x2 0 0)))"),
        ('(memory (export "memory") 1)', "(func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))"),
    ],
)
def test_threads_vectors_and_bulk_memory_are_refused(memory, more):
    with pytest.raises(Rejected) as caught:
        WasmCode(make_wat(memory=memory, more=more))
    assert caught.value.reason == "bad_code"


# ---- storage ----------------------------------------------------------------------------------------------------------


def test_storage_is_read_written_and_removed():
    storage = MemoryStorage({b"a": b"old", b"b": b"x"})
    body = """(call $db_write (global.get $c) (call $db_read (global.get $a)))
        (call $db_remove (global.get $b)) (call $db_remove (global.get $b))"""
    execute(make_wat(execute=body, regions={"a": b"a", "b": b"b", "c": b"c"}), storage=storage)
    assert storage == {b"a": b"old", b"c": b"old"}


def test_an_absent_key_is_a_null_pointer_and_an_empty_value_traps():
    assert run_word("(call $db_read (global.get $k))", {"k": b"k"}) == 0
    with pytest.raises(WasmTrap, match="empty"):
        execute(make_wat(execute="(call $db_write (global.get $k) (global.get $e))", regions={"k": b"k", "e": b""}))


@pytest.mark.parametrize(
    ("start", "end", "order", "expected"),
    [
        ("(i32.const 0)", "(i32.const 0)", 1, [b"a", b"b", b"c"]),
        ("(i32.const 0)", "(i32.const 0)", 2, [b"c", b"b", b"a"]),
        ("(global.get $b)", "(i32.const 0)", 1, [b"b", b"c"]),
        ("(i32.const 0)", "(global.get $b)", 1, [b"a"]),
        ("(global.get $b)", "(global.get $b)", 1, []),
    ],
)
def test_a_scan_goes_over_a_range_in_either_order(start, end, order, expected):
    entries = {b"a": b"1", b"b": b"2", b"c": b"3"}
    for step, decode in (("db_next", decode_record), ("db_next_key", decode_record), ("db_next_value", decode_record)):
        storage = MemoryStorage(entries)
        body = f"""(local.set $n (call $db_scan {start} {end} (i32.const {order})))
            (call $db_write (global.get $o1) (call ${step} (local.get $n)))"""
        if not expected and step != "db_next":
            body = f"(local.set $n (call $db_scan {start} {end} (i32.const {order})))" + keep_word(
                f"(call ${step} (local.get $n))"
            )
        wasm = make_wat(execute=body, regions={"b": b"b", "o1": b"z1", "out": b"out"})
        execute(wasm, storage=storage)
        if step == "db_next":
            assert decode(storage[b"z1"]) == ((expected[0], entries[expected[0]]) if expected else (b"", b""))
        elif expected:
            assert storage[b"z1"] == (expected[0] if step == "db_next_key" else entries[expected[0]])
        else:
            assert storage[b"out"] == bytes(4)


def decode_record(data):
    """(key, value) of two sections, each with its length behind it."""
    value_size = int.from_bytes(data[-4:], "big")
    value = data[len(data) - 4 - value_size : -4]
    rest = data[: len(data) - 4 - value_size]
    key_size = int.from_bytes(rest[-4:], "big")
    assert len(rest) == key_size + 4
    return rest[:key_size], value


def test_an_iterator_or_order_that_is_none_traps():
    for body in (
        "(drop (call $db_next (i32.const 1)))",
        "(drop (call $db_scan (i32.const 0) (i32.const 0) (i32.const 3)))",
    ):
        with pytest.raises(WasmTrap):
            execute(make_wat(execute=body))


# ---- addresses --------------------------------------------------------------------------------------------------------


def test_addresses_are_checked_taken_apart_and_put_together():
    data = bytes(range(32))
    text = encode_address(data, "wasm").encode()
    storage = MemoryStorage()
    body = """(drop (call $addr_canonicalize (global.get $text) (global.get $room)))
        (call $db_write (global.get $k1) (global.get $room))
        (drop (call $addr_humanize (global.get $data) (global.get $room)))
        (call $db_write (global.get $k2) (global.get $room))"""
    regions = {"text": text, "data": data, "room": b"\0" * 90, "k1": b"1", "k2": b"2"}
    execute(make_wat(execute=body, regions=regions), storage=storage)
    assert storage == {b"1": data, b"2": text}
    assert run_word("(call $addr_validate (global.get $text))", {"text": text}) == 0


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"wasm1",
        b"\xff",
        encode_address(bytes(20), "cosmos").encode(),
        encode_address(bytes(20), "wasm").upper().encode(),
    ],
)
def test_a_wrong_address_is_told_in_words_and_traps_nothing(text):
    assert run_word("(call $addr_validate (global.get $text))", {"text": text}) != 0
    assert run_word("(call $addr_canonicalize (global.get $text) (global.get $text))", {"text": text}) != 0
    assert run_word("(call $addr_humanize (global.get $data) (global.get $data))", {"data": b"12345"}) != 0


# ---- signatures -------------------------------------------------------------------------------------------------------

KEY = PrivateKey(bytes(31) + b"\7")
DIGEST = sha256(b"message").digest()
RECOVERABLE = KEY.sign_recoverable(DIGEST, hasher=None)
SIGNATURE = RECOVERABLE[:64]
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
HIGH = SIGNATURE[:32] + (ORDER - int.from_bytes(SIGNATURE[32:], "big")).to_bytes(32, "big")


@pytest.mark.parametrize(
    ("digest", "signature", "key", "expected"),
    [
        (DIGEST, SIGNATURE, KEY.public_key.format(), 0),
        (DIGEST, SIGNATURE, KEY.public_key.format(compressed=False), 0),
        (DIGEST, HIGH, KEY.public_key.format(), 0),
        (bytes(32), SIGNATURE, KEY.public_key.format(), 1),
        (DIGEST, SIGNATURE[:-1] + b"\0", KEY.public_key.format(), 1),
        (DIGEST, b"\xff" * 64, KEY.public_key.format(), 1),
        (DIGEST[:31], SIGNATURE, KEY.public_key.format(), 3),
        (DIGEST, SIGNATURE[:63], KEY.public_key.format(), 4),
        (DIGEST, SIGNATURE, b"\2" * 10, 5),
        (DIGEST, SIGNATURE, b"\5" * 33, 10),
    ],
)
def test_an_ecdsa_signature_is_judged(digest, signature, key, expected):
    body = "(call $secp256k1_verify (global.get $d) (global.get $s) (global.get $k))"
    assert run_word(body, {"d": digest, "s": signature, "k": key}) == expected


def recover(parameter, signature=SIGNATURE, digest=DIGEST):
    """(what is recovered or None, code)."""
    storage = MemoryStorage()
    call = f"(call $secp256k1_recover_pubkey (global.get $d) (global.get $s) (i32.const {parameter}))"
    body = f"""{keep_word(f"(i32.wrap_i64 (i64.shr_u {call} (i64.const 32)))")}
        (local.set $n (i32.wrap_i64 {call}))
        (if (local.get $n) (then (call $db_write (global.get $key) (local.get $n))))"""
    regions = {"out": b"out", "key": b"key", "d": digest, "s": signature}
    execute(make_wat(execute=body, regions=regions), storage=storage)
    return storage.get(b"key"), int.from_bytes(storage[b"out"], "little")


def test_the_signer_is_recovered_and_another_parameter_gives_another():
    assert recover(RECOVERABLE[64]) == (KEY.public_key.format(compressed=False), 0)
    other, code = recover(1 - RECOVERABLE[64])
    assert code == 0
    assert other != KEY.public_key.format(compressed=False)


def test_what_cannot_be_recovered_is_a_code():
    assert recover(2) == (None, 6)
    assert recover(0, signature=b"\xff" * 64) == (None, 10)
    assert recover(0, digest=DIGEST[:31]) == (None, 3)


def test_ed25519_signatures_are_judged_alone_and_in_batches():
    seed, message = bytes(32), b"message"
    key, signature = ed25519.compute_public_key(seed), ed25519.sign(seed, message)
    alone = "(call $ed25519_verify (global.get $m) (global.get $s) (global.get $k))"
    assert run_word(alone, {"m": message, "s": signature, "k": key}) == 0
    assert run_word(alone, {"m": b"massage", "s": signature, "k": key}) == 1
    assert run_word(alone, {"m": message, "s": signature[:63], "k": key}) == 4

    def sections(*parts):
        return b"".join(part + len(part).to_bytes(4, "big") for part in parts)

    batch = "(call $ed25519_batch_verify (global.get $m) (global.get $s) (global.get $k))"
    other = ed25519.sign(seed, b"other")
    both = {"m": sections(message, b"other"), "s": sections(signature, other), "k": sections(key)}
    assert run_word(batch, both) == 0
    assert run_word(batch, both | {"s": sections(other, signature)}) == 1
    assert run_word(batch, both | {"m": sections(message, b"other", b"third")}) == 7


def test_a_curve_that_the_host_has_not_traps():
    with pytest.raises(WasmTrap) as caught:
        run_word("(call $secp256r1_verify (global.get $k) (global.get $k) (global.get $k))", {"k": b"k"})
    assert caught.value.reason == "no_curve"


# ---- contracts that ask -----------------------------------------------------------------------------------------------


def test_a_question_is_put_to_the_querier_and_its_answer_given():
    storage = MemoryStorage()
    asked = []

    def answer(request):
        asked.append(request)
        return b'{"ok":{"ok":"e30="}}'

    execute(get_asker(), b'{"bank":{}}', storage, answer)
    assert asked == [b'{"bank":{}}']
    assert storage[b"answer"] == b'{"ok":{"ok":"e30="}}'


def test_a_contract_is_asked_while_another_runs_and_both_use_one_meter():
    meter = GasMeter()
    inner = []

    def answer(request):
        before = meter.used
        found = WasmCode(get_puppet()).query(MemoryStorage(), ENV, b'{"ok":"e30="}', refuse_query, meter)
        inner.append(meter.used - before)
        return found + request

    storage = MemoryStorage()
    execute(get_asker(), b"?", storage, answer, meter)
    assert storage[b"answer"] == b"{}?"
    assert inner[0] > 0
    alone = GasMeter()
    execute(get_asker(), b"?", MemoryStorage(), lambda request: b"{}" + request, alone)
    assert meter.used == alone.used + inner[0]


def test_what_goes_wrong_in_a_querier_ends_the_call_as_itself():
    class Ours(Exception):
        pass

    def fail(request):
        raise Ours(request)

    with pytest.raises(Ours):
        execute(get_asker(), b"?", MemoryStorage(), fail)
    assert execute(get_puppet(), OK) == json.loads(OK)["ok"]
