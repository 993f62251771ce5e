"""Canonical JSON: one byte string per value, and bombs refused before parsing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import canonical as c
from tests.messages.builders import get_refusal

MIB = 1_048_576
ascii_keys = st.text(st.characters(min_codepoint=0, max_codepoint=127), max_size=8)
values = st.recursive(
    st.one_of(st.text(max_size=10), st.booleans(), st.integers(-(2**53), 2**53)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(ascii_keys, inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(values)
def test_a_value_comes_back_and_its_bytes_are_the_only_ones(value):
    data = c.encode_canonical(value)
    assert c.decode_canonical(data) == value
    assert c.encode_canonical(c.decode_canonical(data)) == data


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(ascii_keys, st.integers(0, 9), min_size=2), st.randoms())
def test_the_order_of_insertion_changes_no_digest(value, rng):
    items = list(value.items())
    rng.shuffle(items)
    assert c.compute_document_digest(dict(items)) == c.compute_document_digest(value)


GOLDEN = {"schema": "test/1", "b": [1, True, "0x00", {"z": "é", "a": -5}], "a": {"10": 1, "9": 2}, "": []}
GOLDEN_BYTES = '{"":[],"a":{"10":1,"9":2},"b":[1,true,"0x00",{"a":-5,"z":"é"}],"schema":"test/1"}'
GOLDEN_DIGEST = "a3395f47d60e17a1c457622c949de7f6d928a15c10892a4fc6c5fd0a9269961e"


def test_a_golden_document_keeps_its_bytes_and_digest():
    assert c.encode_canonical(GOLDEN).decode() == GOLDEN_BYTES
    assert c.compute_document_digest(GOLDEN).hex() == GOLDEN_DIGEST


@pytest.mark.parametrize("seed", ["1", "77"])
def test_two_processes_with_other_hash_seeds_agree(seed):
    code = (
        "from messages.canonical import compute_document_digest as f;"
        f"print(f(dict(reversed(list({GOLDEN!r}.items())))).hex())"
    )
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == GOLDEN_DIGEST


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        float("nan"),
        2**53 + 1,
        -(2**53) - 1,
        b"x",
        {1: 2},
        {"é": 1},
        {"a": None},
        [{"a": [0.0]}],
        "\ud800",
        {"\ud800": 1},
        {1, 2},
    ],
)
def test_what_has_no_canonical_form_is_not_written(value):
    assert get_refusal(c.encode_canonical, value) == "not_canonical"


def nest(depth: int) -> list:
    value: list = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_depth_is_limited_both_ways():
    assert c.decode_canonical(c.encode_canonical(nest(c.MAX_DEPTH))) == nest(c.MAX_DEPTH)
    assert get_refusal(c.encode_canonical, nest(c.MAX_DEPTH + 1)) == "not_canonical"
    assert get_refusal(c.decode_canonical, b"[" * 33 + b"]" * 33) == "depth"
    assert get_refusal(c.decode_canonical, b'{"a":' * 33 + b"1" + b"}" * 33) == "depth"
    assert c.decode_canonical(b"[[1]]", max_depth=2) == [[1]]
    assert get_refusal(c.decode_canonical, b"[[[1]]]", MIB, 2) == "depth"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" 1",
        b"1 ",
        b"1\n",
        b"null",
        b"[null]",
        b"1.0",
        b"1e3",
        b"1E3",
        b"-0",
        b"01",
        b"+1",
        b"9007199254740993",
        b"-9007199254740993",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1,}',
        b"[1,]",
        b'"\\u0061"',
        b'"\\/"',
        b'"\\u00e9"',
        b'"\\ud800"',
        b'"\\ud83d\\ude00"',
        b'"\\u001F"',
        b'"\n"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"'a'",
        b'"a',
        b"[",
        b"]",
        b"][",
        b"[}",
        b"[[]",
        b"truefalse",
        b"tru",
        b'{"\xc3\xa9":1}',
        b"\xef\xbb\xbf1",
        b'{"a":1}{"b":2}',
        b"// x",
        b'[\\"a"]',
    ],
)
def test_f14_every_other_spelling_is_refused(text):
    assert get_refusal(c.decode_canonical, text) == "not_canonical"


def test_f14_a_twin_that_parses_leniently_takes_what_ours_refuses():
    # ibc-go: nodes disagreed over JSON written differently. Two texts, one value for the twin, no value for us.
    first, second = b'{"amount":1,"amount":5}', b'{"amount": 5}'
    assert json.loads(first) == json.loads(second)
    assert get_refusal(c.decode_canonical, first) == get_refusal(c.decode_canonical, second) == "not_canonical"


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text('[]{}",:0123456789-.eE \\truefalsn', max_size=60).map(str.encode)))
def test_hostile_bytes_are_refused_or_are_the_one_form(data):
    refusal = get_refusal(c.decode_canonical, data)
    assert refusal in {None, "not_canonical", "depth"}
    if refusal is None:
        assert c.encode_canonical(c.decode_canonical(data)) == data


BOMBS = {
    "open brackets": b"[" * MIB,
    "balanced depth": b"[" * (MIB // 2) + b"]" * (MIB // 2),
    "objects": b'{"":' * (MIB // 5) + b"0" + b"}" * (MIB // 5),
    "flat lists": b"[" + b"[]," * (MIB // 3 - 2) + b"[]]",
    "flat objects": b"[" + b'{"":0},' * (MIB // 7 - 2) + b"0]",
    "one number": b"9" * MIB,
    "quotes": b'"' * MIB,
    "escaped quotes": b'"' + b'\\"' * (MIB // 2 - 1),
    "backslashes": b"\\" * MIB,
    "outside backslashes": b'[\\"' * (MIB // 3),
    "literals": b"[" + b"true," * (MIB // 5 - 1) + b"tru]",
    "stairs": b"".join(b"[" * d + b"]" * d + b"," for d in range(900)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_fault_27_a_mebibyte_bomb_is_refused(name):
    assert len(BOMBS[name]) <= MIB
    assert get_refusal(c.decode_canonical, BOMBS[name]) in {"depth", "size", "not_canonical"}


def test_more_bytes_than_the_limit_are_not_looked_at():
    assert get_refusal(c.decode_canonical, b"1" * (MIB + 1)) == "size"
    assert get_refusal(c.decode_canonical, b'"aaaa"', 5) == "size"
    assert c.decode_canonical(b'"aaa"', 5) == "aaa"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(-(2**256) + 1, 2**256 - 1))
def test_hex_and_amounts_come_back(data, amount):
    assert c.decode_hex(c.encode_hex(data), len(data)) == data
    assert c.decode_amount(c.encode_amount(amount), signed=True) == amount


@pytest.mark.parametrize("text", ["", "0X00", "0xAB", "ab", "0x0", "0x0g", " 0x00", "0x00\n", None, 5, b"0x00"])
def test_hex_has_one_form(text):
    assert get_refusal(c.decode_hex, text) == "bad_hex"


def test_hex_of_another_width_is_refused():
    assert get_refusal(c.decode_hex, "0x0011", 3) == "bad_hex"


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "01", "1.0", "1e3", " 1", "1\n", "\uff11", "0x1", str(2**256), "9" * 80, None, 5, True]
)
def test_amounts_have_one_form(text):
    assert get_refusal(c.decode_amount, text) == "bad_amount"


def test_signed_amounts_take_a_minus_but_no_minus_zero():
    assert c.decode_amount("-5", signed=True) == -5
    assert get_refusal(lambda: c.decode_amount("-0", signed=True)) == "bad_amount"
    for bad in (True, 2**256, -(2**256)):
        assert get_refusal(c.encode_amount, bad) == "bad_amount"
