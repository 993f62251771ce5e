"""What a user's way to a Cosmos chain says and signs; the chain itself is tried in test_wasmd.py."""

from __future__ import annotations

from hashlib import sha256

import pytest
from coincurve import PrivateKey, PublicKey
from cosmpy.protos.cosmos.bank.v1beta1.tx_pb2 import MsgSend
from cosmpy.protos.cosmos.tx.v1beta1.tx_pb2 import AuthInfo, SignDoc, TxBody, TxRaw

from messages.errors import Rejected
from relayer.testnet.cosmos_door import CosmosDoor, Done, Money, _pack, _tell, get_key_address
from relayer.testnet.wasmd import get_environment

KEY = bytes([7]) * 32


def make_door(gas_price="0.025"):
    return CosmosDoor("http://127.0.0.1:1", "chain-1", KEY, bytes(32), "osmo", Money("uosmo", gas_price, 5))


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (
            "failed to execute message; message index: 0: amount too low: execute wasm contract failed [x/keeper.go:1]",
            "amount too low",
        ),
        ("message index: 1: sequence: instantiate wasm contract failed", "sequence"),
        ("account sequence mismatch, expected 4, got 3", "account sequence mismatch, expected 4, got 3"),
        ("x" * 900, "x" * 400),
    ],
)
def test_a_refusal_is_told_in_the_contracts_own_words(log, told):
    assert _tell(log) == told


def test_an_account_is_the_one_that_other_wallets_derive():
    # the phrase of every development chain: "test test ... junk", first account of coin 118
    from eth_account import Account

    from relayer.testnet.nodes import MNEMONIC
    from relayer.testnet.wasmd import COIN_PATH

    Account.enable_unaudited_hdwallet_features()
    key = bytes(Account.from_mnemonic(MNEMONIC, account_path=COIN_PATH).key)
    from cosmpy.aerial.wallet import LocalWallet

    assert make_door().get_text(get_key_address(key)) == str(LocalWallet.from_mnemonic(MNEMONIC, "osmo").address())


def test_the_signature_is_over_this_chain_and_number_and_no_other():
    door = make_door()
    body = TxBody(messages=[_pack(MsgSend(from_address="a", to_address="b"))])
    raw = TxRaw.FromString(door._sign(KEY, body, 11, 3, 200_000))
    public = PublicKey.from_valid_secret(KEY)
    auth = AuthInfo.FromString(raw.auth_info_bytes)
    assert auth.signer_infos[0].sequence == 3

    def is_good(chain_id, number):
        document = SignDoc(
            body_bytes=raw.body_bytes, auth_info_bytes=raw.auth_info_bytes, chain_id=chain_id, account_number=number
        )
        digest = sha256(document.SerializeToString(deterministic=True)).digest()
        again = PrivateKey(KEY).sign_recoverable(digest, hasher=None)[:64]
        return again == raw.signatures[0] and len(public.format()) == 33

    assert is_good("chain-1", 11)
    assert not is_good("chain-2", 11)
    assert not is_good("chain-1", 12)


@pytest.mark.parametrize(
    ("price", "gas", "fee"), [("0.025", 100_001, "2501"), ("0.001", 174_200, "175"), ("1", 7, "7")]
)
def test_a_fee_is_never_rounded_below_what_the_chain_asks(price, gas, fee):
    auth = AuthInfo.FromString(make_door(price)._make_auth(KEY, 0, gas))
    assert [(coin.denom, coin.amount) for coin in auth.fee.amount] == [("uosmo", fee)]
    assert auth.fee.gas_limit == gas


def test_an_event_that_is_not_there_is_named():
    done = Done(bytes(32), 1, 1, (("a", {"x": "1"}), ("a", {"x": "2"}), ("b", {})))
    assert done.get("a", "x") == "2"
    with pytest.raises(Rejected) as caught:
        done.get("b", "x")
    assert caught.value.reason == "no_event"


def test_the_library_beside_the_program_is_looked_for_first(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    assert get_environment(tmp_path / "wasmd")["LD_LIBRARY_PATH"] == f"{tmp_path}:/elsewhere"
    monkeypatch.delenv("LD_LIBRARY_PATH")
    assert get_environment(tmp_path / "wasmd")["LD_LIBRARY_PATH"] == str(tmp_path)
