"""The vault model of these tests is a right vault: it replays the protocol's own histories, call by call."""

from __future__ import annotations

import json

import pytest

from messages.bodies import CLEARING_CLIENT, ENCODING, PORT, VERSION, SeriesDefinition
from messages.digests import compute_pause_digest, recover_signer
from messages.ids import get_vault_client
from messages.packet import Packet, Payload
from tests.rules.test_ledger_traces import FILE, get_names, get_vault
from tests.vault_model import RevertError, VaultModel

NAMES = ("underlying", "quote_class", "price_source")
FIELDS = (
    "underlying",
    "expiry",
    "strike_e8",
    "right",
    "quote_class",
    "multiplier_e8",
    "price_source",
    "twap_seconds",
)


def get_definition(item):
    return SeriesDefinition(*[bytes.fromhex(item[f]) if f in NAMES else int(item[f]) for f in FIELDS])


def is_out_of_scope(step):
    """Signatures, gas and the bank of Cosmos are not modelled; what they refuse leaves the vault as it was."""
    word = step.get("revert")
    return (
        step["call"] == "register_denom"
        or word in ("signature", "denom")
        or (word is not None and step["call"] in ("recv", "pause"))
    )


def call(model, vectors, name, step):
    a, by = step["args"], name(step["by"])
    house = a.get("for_house", False)
    match step["call"]:
        case "recv":
            payload = Payload(PORT, PORT, VERSION, ENCODING, bytes.fromhex(a["value"]))
            model.recv(Packet(a["sequence"], get_vault_client(model.id), CLEARING_CLIENT, a["timeout"], (payload,)))
        case "deposit":
            arrived = int(a["arrived"]) if "arrived" in a else None
            model.deposit(name(a["asset"]), int(a["amount"]), name(a["beneficiary"]), arrived)
        case "link":
            sig = bytes.fromhex(a["signature"])
            model.link(by, name(a["portfolio"]), a["valid_until"], sig[:32], sig[32:64], sig[64])
        case "list_series":
            model.list_series(get_definition(vectors["series"][a["definition"]]))
        case "offer":
            numbers = (int(a["quantity"]), int(a["premium_per_contract"]), a["valid_until"])
            model.offer(by, a["side"], name(a["series"]), name(a["asset"]), *numbers)
        case "cancel":
            model.cancel(by, a["offer"])
        case "take":
            model.take(by, a["offer"], int(a["quantity"]), a["nonce"], for_house=house)
        case "request_withdrawal":
            model.request_withdrawal(by, name(a["asset"]), int(a["amount"]), for_house=house)
        case "claim":
            model.claim(name(a["account"]), name(a["asset"]))
        case "escape":
            model.escape(by, name(a["asset"]))
        case "pause":
            digest = compute_pause_digest(model.id, model.epoch)
            model.pause(recover_signer(digest, bytes.fromhex(a["signature"])))
        case other:
            raise AssertionError(other)


def test_the_vault_model_answers_every_call_of_the_vectors_as_a_vault_does():
    if not FILE.is_file():
        pytest.skip(f"no protocol vectors at {FILE}: set RELAYER_VECTORS")
    vectors = json.loads(FILE.read_text())
    compared = 0
    for trace in vectors["traces"]:
        family = vectors["families"][trace["family"]]
        name = get_names(vectors, family)
        model = VaultModel(get_vault(trace, family, vectors["operators"], name))
        for number, step in enumerate(trace["steps"]):
            if is_out_of_scope(step):
                continue
            model.time = step["t"]
            try:
                call(model, vectors, name, step)
                reverted = False
            except RevertError:
                reverted = True
            assert reverted == ("revert" in step), (trace["id"], number)
            assert model.head.hex() == step.get("head", model.head.hex()), (trace["id"], number)
            compared += 1
    assert compared > 2_000
