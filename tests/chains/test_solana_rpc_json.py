"""Answers of Solana's JSON-RPC: one form each, and packets from nothing but the vault's own inner instructions."""

from __future__ import annotations

import base64
import contextlib
import struct
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.solana import rpc_json as rpc
from chains.solana.address import (
    compute_chain_name,
    decode_base58,
    decode_key,
    decode_signature,
    encode_base58,
    encode_key,
    is_chain_name,
    parse_vault,
)
from messages.errors import Rejected, RelayerError, Unavailable
from messages.hashing import sha256
from messages.ids import get_vault_client

PROGRAM, STATE, OTHER = sha256(b"program"), sha256(b"state"), sha256(b"another program")
CLIENT = get_vault_client(sha256(b"vault id"))
SIGNATURE = encode_base58(bytes([1]) * 64)
LISTED = rpc.Listed(SIGNATURE, 1_000, is_failed=False)
EVENT = bytes([255, 0]) + struct.pack("<QQ", 7, 1_900_000_000) + bytes([9]) * 32 + b"a value"


# ---- names ---------------------------------------------------------------------------------------------------------------


def test_clusters_are_named_after_their_genesis_hash():
    for text, name in (
        ("5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"),
        ("EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG", "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"),
        ("4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY", "solana:4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z"),
    ):
        assert compute_chain_name(decode_key(text)) == name
        assert is_chain_name(name)
        assert not is_chain_name(name[:-1])


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=50)
def test_a_key_has_one_text(key):
    assert decode_key(encode_key(key)) == key
    if any(key):
        assert parse_vault(encode_key(key)) == parse_vault("0x" + key.hex()) == key


@pytest.mark.parametrize(
    "text",
    ["", "0", "l" * 32, encode_base58(bytes(31)), encode_base58(bytes([1]) * 33), " " + encode_key(STATE), None, 7],
)
def test_what_is_no_key_is_refused(text):
    with pytest.raises(Rejected) as caught:
        decode_key(text)
    assert caught.value.reason == "bad_address"


def test_a_long_text_is_judged_before_any_work_is_done_with_it():
    assert decode_base58("1" * 30, 32) == bytes(30)
    with pytest.raises(Rejected) as caught:
        decode_base58("z" * 10_000_000, 10_240)
    assert caught.value.reason == "size"
    with pytest.raises(Rejected):
        decode_signature("2" * 10_000_000)
    with pytest.raises(Rejected):
        parse_vault("0x" + "0" * 64)


# ---- events --------------------------------------------------------------------------------------------------------------


def make_answer():
    """A transaction of the vault whose program and state came through a lookup table."""
    keys = [encode_key(sha256(b"payer")), encode_key(OTHER)]
    inner = [
        {"programIdIndex": 1, "accounts": [0], "data": encode_base58(b"something else"), "stackHeight": 2},
        {"programIdIndex": 3, "accounts": [2], "data": encode_base58(EVENT), "stackHeight": 2},
    ]
    return {
        "slot": 1_000,
        "blockTime": 1_800_000_000,
        "version": 0,
        "transaction": {"signatures": [SIGNATURE], "message": {"accountKeys": keys, "instructions": []}},
        "meta": {
            "err": None,
            "innerInstructions": [{"index": 2, "instructions": inner}],
            "loadedAddresses": {"writable": [encode_key(STATE)], "readonly": [encode_key(PROGRAM)]},
            "logMessages": ["Program data: " + base64.b64encode(EVENT).decode()],
        },
    }


def read(answer, listed=LISTED):
    return rpc.parse_events(answer, listed, PROGRAM, STATE, CLIENT)


def test_the_vaults_own_instruction_is_a_packet():
    (event,) = read(make_answer())
    assert event.is_outbox
    assert (event.packet.sequence, event.packet.timeout_timestamp) == (7, 1_900_000_000)
    assert event.packet.payloads[0].value == b"a value"
    assert event.transaction == bytes([1]) * 64


def read_by_data_alone(answer):
    """The fault of E2: whoever shows the bytes of an event has made one."""
    found = []
    for group in answer["meta"]["innerInstructions"]:
        found += [i for i in group["instructions"] if decode_base58(i["data"], 10_240)[:2] == bytes([255, 0])]
    return found


def read_by_logs(answer):
    """The fault of a reader of logs: anybody writes logs, and long ones are cut."""
    return [line for line in answer["meta"]["logMessages"] if line.startswith("Program data: ")]


def _set_program(answer):
    answer["meta"]["innerInstructions"][0]["instructions"][1]["programIdIndex"] = 1


def _set_account(answer):
    answer["meta"]["innerInstructions"][0]["instructions"][1]["accounts"] = [0]


def _add_account(answer):
    answer["meta"]["innerInstructions"][0]["instructions"][1]["accounts"] = [2, 0]


def _drop_account(answer):
    answer["meta"]["innerInstructions"][0]["instructions"][1]["accounts"] = []


def _fail(answer):
    answer["meta"]["err"] = {"InstructionError": [2, {"Custom": 1}]}


@pytest.mark.parametrize("change", [_set_program, _set_account, _add_account, _drop_account, _fail])
def test_another_program_another_vault_or_a_failed_transaction_show_nothing_e2_e6(change):
    answer = make_answer()
    change(answer)
    assert read(answer) == ()
    assert read_by_data_alone(answer)
    assert read_by_logs(answer)


def test_logs_are_never_read():
    answer = make_answer()
    answer["meta"]["innerInstructions"] = []
    assert read(answer) == ()
    assert read_by_logs(answer)


@pytest.mark.parametrize("field", ["innerInstructions", "meta"])
def test_a_node_that_keeps_no_inner_instructions_has_not_said_that_there_are_none(field):
    answer = make_answer()
    holder = answer if field == "meta" else answer["meta"]
    holder[field] = None
    with pytest.raises(Unavailable) as caught:
        read(answer)
    assert caught.value.reason == "no_inner_instructions"
    with pytest.raises(Unavailable) as caught:
        read(None)
    assert caught.value.reason == "not_found"


def _break(path, value):
    def change(answer):
        *holders, last = path
        holder = answer
        for key in holders:
            holder = holder[key]
        if value is KeyError:
            del holder[last]
        else:
            holder[last] = value

    return change


INNER = ("meta", "innerInstructions", 0, "instructions", 1)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("slot",), 1_001, "wrong_transaction"),
        (("slot",), True, "bad_json"),
        (("transaction", "signatures"), [encode_base58(bytes([2]) * 64)], "wrong_transaction"),
        (("transaction", "signatures"), [], "wrong_transaction"),
        (("meta", "err"), KeyError, "bad_json"),
        (("meta", "loadedAddresses"), None, "bad_json"),
        (("meta", "loadedAddresses", "writable"), ["1"] * 257, "size"),
        (("meta", "loadedAddresses", "writable"), [7], "bad_json"),
        (("meta", "innerInstructions"), {}, "bad_json"),
        ((*INNER, "programIdIndex"), 4, "bad_json"),
        ((*INNER, "programIdIndex"), -1, "bad_json"),
        ((*INNER, "accounts"), [2.0], "bad_json"),
        ((*INNER, "data"), "0", "bad_base58"),
        ((*INNER, "data"), "z" * 20_000, "size"),
        ((*INNER, "data"), encode_base58(EVENT[:40]), "bad_event"),
        (("transaction", "message", "accountKeys"), None, "bad_json"),
    ],
)
def test_a_transaction_of_another_form_is_refused(path, value, reason):
    answer = make_answer()
    _break(path, value)(answer)
    with pytest.raises(Rejected) as caught:
        read(answer)
    assert caught.value.reason == reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["slot", "transaction", "meta"]), JSON, st.data())
@settings(max_examples=100)
def test_whatever_a_node_says_only_the_products_errors_leave(field, value, data):
    answer = make_answer()
    if field == "meta" and data.draw(st.booleans()):
        answer["meta"][data.draw(st.sampled_from(sorted(answer["meta"])))] = value
    else:
        answer[field] = value
    with contextlib.suppress(RelayerError):
        read(answer)
    assert (rpc.parse_failure(value) is None) == (value is None)


# ---- other answers -------------------------------------------------------------------------------------------------------

ACCOUNT = {
    "data": [base64.b64encode(b"some data").decode(), "base64"],
    "executable": False,
    "lamports": 5,
    "owner": encode_key(PROGRAM),
    "rentEpoch": 2**64 - 1,
    "space": 9,
}


def in_context(value, slot=44):
    return {"context": {"apiVersion": "2.0.0", "slot": slot}, "value": value}


def test_accounts_come_with_the_slot_that_was_read():
    found = rpc.parse_accounts(in_context([ACCOUNT, None]), 2)
    assert found == rpc.Accounts(44, (rpc.Account(PROGRAM, 5, b"some data", is_program=False), None))
    assert rpc.parse_account(in_context(None)).accounts == (None,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.pop("context"), "bad_json"),
        (lambda a: a["context"].update(slot="44"), "bad_json"),
        (lambda a: a["context"].update(slot=2**64), "bad_json"),
        (lambda a: a.pop("value"), "bad_json"),
        (lambda a: a["value"].pop(), "bad_json"),
        (lambda a: a["value"][0].update(data="c29tZSBkYXRh"), "bad_json"),
        (lambda a: a["value"][0].update(data=["c29tZSBkYXRh", "base58"]), "bad_json"),
        (lambda a: a["value"][0].update(data=["c29tZSBkYXRh=", "base64"]), "bad_json"),
        (lambda a: a["value"][0].update(data=["c29tZSBkYXR", "base64"]), "bad_json"),
        (lambda a: a["value"][0].update(executable=0), "bad_json"),
        (lambda a: a["value"][0].update(lamports=-1), "bad_json"),
        (lambda a: a["value"][0].update(lamports=1.5), "bad_json"),
        (lambda a: a["value"][0].update(owner="1"), "bad_address"),
        (lambda a: a["value"].extend([None] * 100), "size"),
    ],
)
def test_accounts_of_another_form_are_refused(change, reason):
    answer = in_context([deepcopy(ACCOUNT), None])
    rpc.parse_accounts(answer, 2)
    change(answer)
    with pytest.raises(Rejected) as caught:
        rpc.parse_accounts(answer, 2)
    assert caught.value.reason == reason


def test_the_clock_is_read_from_the_sysvar_alone():
    data = struct.pack("<QqQQq", 44, 1, 2, 3, 1_800_000_000)
    clock = rpc.Account(PROGRAM, 1, data, is_program=False)
    assert rpc.parse_clock(clock, PROGRAM) == rpc.Clock(44, 1_800_000_000)
    for account in (
        None,
        rpc.Account(OTHER, 1, data, is_program=False),
        rpc.Account(PROGRAM, 1, data[:-1], is_program=False),
    ):
        with pytest.raises(Rejected) as caught:
            rpc.parse_clock(account, PROGRAM)
        assert caught.value.reason == "bad_clock"
    with pytest.raises(Rejected):
        rpc.parse_clock(rpc.Account(PROGRAM, 1, struct.pack("<QqQQq", 44, 1, 2, 3, -5), is_program=False), PROGRAM)


def test_lists_of_transactions_are_newest_first():
    rows = [{"signature": SIGNATURE, "slot": slot, "err": err} for slot, err in ((9, None), (9, {}), (7, "x"))]
    found = rpc.parse_signatures(rows, 3)
    assert [(row.slot, row.is_failed) for row in found] == [(9, False), (9, True), (7, True)]
    for bad, reason in (
        (rows[::-1], "order"),
        ([*rows, rows[0]], "size"),
        ([{**rows[0], "signature": "1"}], "bad_signature"),
    ):
        with pytest.raises(Rejected) as caught:
            rpc.parse_signatures(bad, 3)
        assert caught.value.reason == reason


def test_statuses_simulations_fees_and_hashes():
    status = {"slot": 5, "confirmations": None, "err": None, "confirmationStatus": "finalized"}
    assert rpc.parse_statuses(in_context([status, None]), 2) == (rpc.Status(5, None, "finalized"), None)
    for bad in ({**status, "confirmationStatus": "final"}, {**status, "slot": None}, {"slot": 5}):
        with pytest.raises(Rejected):
            rpc.parse_statuses(in_context([bad]), 1)
    with pytest.raises(Rejected):
        rpc.parse_statuses(in_context([]), 1)
    assert rpc.parse_simulation(in_context({"err": None, "unitsConsumed": 7})) == rpc.Simulation(7, None)
    logs = [
        f"Program {encode_key(OTHER)} failed: custom program error: 0x1",
        f"Program {encode_key(PROGRAM)} failed: x",
    ]
    failed = rpc.parse_simulation(in_context({"err": {"InstructionError": [2, {"Custom": 1}]}, "logs": logs}))
    assert failed.failure == rpc.Failure('{"InstructionError": [2, {"Custom": 1}]}', 2, 1, encode_key(OTHER))
    for bad in ({"err": None}, {"unitsConsumed": 7}, {"err": None, "unitsConsumed": -7}):
        with pytest.raises(Rejected):
            rpc.parse_simulation(in_context(bad))
    assert rpc.parse_fees([{"slot": 1, "prioritizationFee": 5}]) == (5,)
    with pytest.raises(Rejected):
        rpc.parse_fees([{"slot": 1}])
    block = {"blockhash": encode_key(OTHER), "lastValidBlockHeight": 9}
    assert rpc.parse_blockhash(in_context(block)) == rpc.Blockhash(OTHER, 9)
    with pytest.raises(Rejected):
        rpc.parse_blockhash(in_context({**block, "blockhash": "1"}))
    assert rpc.parse_validity(in_context(True)) is True
    with pytest.raises(Rejected):
        rpc.parse_validity(in_context(1))
