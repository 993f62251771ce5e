"""Names and hashes: strict CAIP texts, padded names, padded addresses, built-in ids."""

from __future__ import annotations

import pytest
from eth_abi import encode as abi_encode
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import ids
from messages.hashing import keccak256, sha256
from tests.messages.builders import b32, get_refusal, word


def test_the_hashes_are_the_published_ones():
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"a" * 200) != keccak256(b"a" * 201)
    assert sha256(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    "text", ["eip155:1", "cosmos:cosmoshub-4", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "abc:_-Z9"]
)
def test_chain_ids_of_caip_2_pass(text):
    assert ids.parse_chain_id(text) == text


@pytest.mark.parametrize(
    "text", ["", "eip155", "eip155:", ":1", "EIP155:1", "ei:1", "eip155:1:2", "eip155:1\n", " eip155:1", "eip155:é", "a" * 9 + ":1", "eip155:" + "1" * 33, "eip155:" + "1" * 10**6]
)  # fmt: skip
def test_other_chain_ids_do_not(text):
    assert get_refusal(ids.parse_chain_id, text) == "bad_chain_id"


def test_accounts_and_assets_split_and_join():
    account = ids.parse_account_id("eip155:1:0xab16a96d359ec26a11e2c2b3d8f8b8942d5bfcdb")
    assert account == ids.Caip10("eip155:1", "0xab16a96d359ec26a11e2c2b3d8f8b8942d5bfcdb")
    asset = ids.parse_asset_id("cosmos:cosmoshub-4/slip44:118")
    assert asset == ids.Caip19("cosmos:cosmoshub-4", "slip44", "118")
    for text, parse in ((str(account), ids.parse_account_id), (str(asset), ids.parse_asset_id)):
        assert str(parse(text)) == text


@pytest.mark.parametrize("text", ["", "eip155:1", "eip155:1:", "eip155:1:a/b", "eip155:1:a b", "eip155:1:" + "a" * 129])
def test_other_accounts_do_not(text):
    assert get_refusal(ids.parse_account_id, text) == "bad_account_id"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eip155:1/erc20",
        "eip155:1/erc20:",
        "eip155:1/ERC20:0x",
        "eip155:1/erc721:0x06/771769",
        "/a:b",
        "eip155:1/erc20:" + "a" * 129,
    ],
)
def test_other_assets_do_not(text):
    assert get_refusal(ids.parse_asset_id, text) == "bad_asset_id"


@given(st.binary(min_size=20, max_size=20))
def test_an_address_comes_back_from_its_account(address):
    account = ids.get_evm_account(address)
    assert len(account) == 32
    assert ids.get_evm_address(account) == address


@pytest.mark.parametrize("i", range(12))
def test_an_account_with_a_bit_above_the_address_is_no_evm_account(i):
    account = bytearray(ids.get_evm_account(b"\x01" * 20))
    account[i] = 1
    assert get_refusal(ids.get_evm_address, bytes(account)) == "bad_address"


def test_other_widths_are_no_address():
    for width in (0, 19, 21, 32):
        assert get_refusal(ids.get_evm_account, bytes(width)) == "bad_address"
    assert get_refusal(ids.get_evm_address, bytes(20)) == "bad_address"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=32))
def test_a_name_comes_back(name):
    assert ids.decode_name(ids.encode_name(name)) == name


@pytest.mark.parametrize("name", ["", "é", "a\0b", "a\n", "x" * 33])
def test_names_that_have_no_encoding_are_refused(name):
    assert get_refusal(ids.encode_name, name) == "bad_name"


@pytest.mark.parametrize(
    "data", [bytes(32), b"USDC", b"\0USDC" + bytes(27), b"US\0DC" + bytes(27), b"\xff" * 32, b"a\n" + bytes(30)]
)
def test_bytes_that_are_no_padded_name_are_refused(data):
    assert get_refusal(ids.decode_name, data) == "bad_name"


@settings(max_examples=30)
@given(b32)
def test_a_due_is_what_an_independent_abi_library_gives(quote_class):
    assert ids.compute_due_id(quote_class) == keccak256(
        abi_encode(["string", "bytes32"], ["optsettle/due", quote_class])
    )


def test_house_and_insurance_are_the_denoms_nobody_may_register():
    assert ids.compute_denom_asset("optsettle/house") == ids.HOUSE
    assert ids.compute_denom_asset("optsettle/insurance") == ids.INSURANCE
    assert ids.HOUSE != ids.INSURANCE


def test_portfolios_of_two_accounts_or_two_vaults_differ():
    own = {ids.compute_own_portfolio(v, a) for v in (word(1), word(2)) for a in (word(1), word(2))}
    assert len(own) == 4


def test_own_portfolios_take_whole_ids_only():
    # 64 bytes split elsewhere would give the same hash
    assert get_refusal(ids.compute_own_portfolio, word(1) + b"\0", word(2)[1:]) == "bad_account"
