"""Digests and signatures: every field is bound, one signature per statement, nothing recovers to nobody."""

from __future__ import annotations

import inspect
import random
from dataclasses import replace

import coincurve
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import digests as d
from messages.bodies import Unpause, make_inbox_packet
from messages.errors import Rejected
from messages.packet import compute_commitment
from tests.messages.builders import EDGE_SEQUENCES, EXECUTE, KEYS, NOW, OPERATORS, VAULT, get_refusal, word

DOMAIN = {"name": "optsettle", "version": "1"}
KEY = KEYS[0]
N = d.SECP256K1_N


def read_type(type_string: str) -> tuple[str, list[dict[str, str]]]:
    name, rest = type_string.rstrip(")").split("(")
    return name, [dict(zip(("type", "name"), part.split(" "), strict=True)) for part in rest.split(",")]


def compute_by_eth_account(type_string: str, values: list, salt: bytes | None) -> bytes:
    name, members = read_type(type_string)
    domain = DOMAIN if salt is None else DOMAIN | {"salt": salt}
    message = {m["name"]: v for m, v in zip(members, values, strict=True)}
    signable = encode_typed_data(domain, {name: members}, message)
    return d.keccak256(b"\x19" + signable.version + signable.header + signable.body)


CASES = {
    "packet": (d.compute_packet_digest, d.PACKET_TYPE, [VAULT, 1, 2, word(3)], True),
    "pause": (d.compute_pause_digest, d.PAUSE_TYPE, [VAULT, 1], True),
    "link": (d.compute_link_digest, d.LINK_TYPE, [VAULT, word(1), word(2), 3], False),
    "report": (d.compute_report_digest, d.REPORT_TYPE, [word(1), word(2), 3, 4, 5, 6], False),
    "mark": (d.compute_mark_digest, d.MARK_TYPE, [word(1), word(2), 3, 4, 5, [1, -2, 3, -4, 5, 6], 7], False),
    "vote": (d.compute_vote_digest, d.VOTE_TYPE, [word(8), 1, 2, word(3)], True),
}


@pytest.mark.parametrize("name", CASES)
def test_a_digest_is_what_an_independent_eip712_library_gives(name):
    compute, type_string, values, salted = CASES[name]
    fields, salt = (values[1:], values[0]) if salted else (values, None)
    assert compute(*values) == compute_by_eth_account(type_string, fields, salt)


def change(value):
    if isinstance(value, bytes):
        return [bytes([value[0] ^ 1]) + value[1:], value[:-1] + bytes([value[-1] ^ 0x80])]
    if isinstance(value, list):
        return [[*value[:i], value[i] + 1, *value[i + 1 :]] for i in range(len(value))]
    return [value + 1, value + 2**40]


@pytest.mark.parametrize("name", CASES)
def test_c6_changing_any_field_of_a_signed_structure_changes_its_digest(name):
    # GiddyVault: the signature covered the data and not the amounts. Driven by the signature of each function.
    compute, _, values, _ = CASES[name]
    assert len(inspect.signature(compute).parameters) == len(values)
    seen = {compute(*values)}
    count = 1
    for i, value in enumerate(values):
        for other in change(value):
            seen.add(compute(*values[:i], other, *values[i + 1 :]))
            count += 1
    assert len(seen) == count


def test_c6_a_twin_that_leaves_a_field_out_is_caught_by_the_same_test():
    def compute_like_twin(source, underlying, stamp, cumulative, spot, confidence):
        return d.compute_report_digest(source, underlying, stamp, cumulative, spot, 0)

    values = CASES["report"][2]
    unchanged = [
        i
        for i, value in enumerate(values)
        for other in change(value)
        if compute_like_twin(*values[:i], other, *values[i + 1 :]) == compute_like_twin(*values)
    ]
    assert set(unchanged) == {5}


def test_statements_of_two_types_two_committees_or_two_kinds_never_share_a_digest():
    body = word(5)
    digests = {
        d.compute_statement_digest(word(1), "Envelope", body),
        d.compute_statement_digest(word(1), "Parameters", body),
        d.compute_statement_digest(word(2), "Envelope", body),
        d.compute_vote_digest(word(1), 0, 0, body),
        d.compute_packet_digest(word(1), 0, 0, body),
        d.compute_pause_digest(word(1), 0),
    }
    assert len(digests) == 6


def test_a_number_or_word_of_another_width_is_refused():
    for call in (
        lambda: d.compute_packet_digest(VAULT, 2**64, 1, word(1)),
        lambda: d.compute_packet_digest(VAULT, -1, 1, word(1)),
        lambda: d.compute_packet_digest(VAULT[:31], 1, 1, word(1)),
        lambda: d.compute_packet_digest(VAULT, 1, 1, word(1) + b"\0"),
        lambda: d.compute_mark_digest(word(1), word(2), 3, 4, 5, [1] * 5, 6),
        lambda: d.compute_mark_digest(word(1), word(2), 3, 4, 5, [2**255] * 6, 6),
    ):
        with pytest.raises(Rejected):
            call()


def test_committee_ids_name_one_set_of_vaults():
    ids = {d.compute_committee_id(v) for v in ([word(1)], [word(2)], [word(1), word(2)], [word(1), word(2), word(3)])}
    assert len(ids) == 4
    for bad in ([], [word(2), word(1)], [word(1), word(1)], [bytes(32)], [b"x"]):
        with pytest.raises(Rejected) as why:
            d.compute_committee_id(bad)
        assert why.value.reason == "bad_committee"


@pytest.mark.parametrize("sequence", EDGE_SEQUENCES)
def test_digests_keep_sequences_apart_at_the_edges_of_number_types(sequence):
    others = {d.compute_packet_digest(VAULT, 0, s, word(1)) for s in EDGE_SEQUENCES if s != sequence}
    assert d.compute_packet_digest(VAULT, 0, sequence, word(1)) not in others


@settings(max_examples=40, deadline=None)
@given(st.integers(1, N - 1), st.binary(min_size=32, max_size=32))
def test_what_a_key_signs_recovers_to_its_address_and_signing_is_deterministic(secret, digest):
    key = secret.to_bytes(32, "big")
    signature = d.sign_digest(key, digest)
    assert d.recover_signer(digest, signature) == d.get_address(key)
    assert d.sign_digest(key, digest) == signature
    assert d.get_address(key).hex() == Account.from_key(key).address[2:].lower()


def test_a_signature_over_another_digest_names_somebody_else():
    signature = d.sign_digest(KEY, word(1))
    assert d.recover_signer(word(2), signature) != d.get_address(KEY)


@pytest.mark.parametrize("key", [b"", bytes(32), b"\xff" * 32, N.to_bytes(32, "big"), b"\x01", b"\x01" * 33])
def test_bad_keys_are_refused_and_never_shown(key):
    for call in (lambda: d.get_address(key), lambda: d.sign_digest(key, word(1))):
        with pytest.raises(Rejected) as why:
            call()
        assert why.value.reason == "bad_key"
        assert why.value.got is None


def make_variants(signature: bytes) -> dict[str, bytes]:
    r, s, v = signature[:32], int.from_bytes(signature[32:64], "big"), signature[64]
    return {
        "high s": r + (N - s).to_bytes(32, "big") + bytes([55 - v]),
        "compact 64 bytes": r + (s | (v - 27) << 255).to_bytes(32, "big"),
        "without v": signature[:64],
        "v 0 or 1": signature[:64] + bytes([v - 27]),
        "v by EIP-155": signature[:64] + bytes([v + 8]),
        "trailing byte": signature + b"\0",
        "der": coincurve.PrivateKey(KEY).sign(word(1), hasher=None),
        "empty": b"",
    }


def test_c10_a_second_form_of_a_signature_is_refused():
    # CVE-2022-35961: "signature used" keyed by its bytes. The twin's set takes the second form, ours never sees it.
    signature = d.sign_digest(KEY, word(1))
    used_by_twin = {signature}
    for name, variant in make_variants(signature).items():
        assert variant not in used_by_twin, name
        with pytest.raises(Rejected) as why:
            d.recover_signer(word(1), variant)
        assert why.value.reason == "bad_signature"
    high_s = make_variants(signature)["high s"]
    twin_key = coincurve.PublicKey.from_signature_and_message(
        high_s[:64] + bytes([high_s[64] - 27]), word(1), hasher=None
    )
    assert d.keccak256(twin_key.format(compressed=False)[1:])[12:] == d.get_address(KEY)


@pytest.mark.parametrize("r", [0, 1, 5, N - 1, N, 2**256 - 1])
@pytest.mark.parametrize("s", [0, 1, N // 2 + 1, N - 1, N, 2**256 - 1])
@pytest.mark.parametrize("v", [0, 1, 26, 27, 28, 29, 255])
def test_b3_edge_signatures_are_refused_or_name_a_real_key(r, s, v):
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([v])
    refusal = get_refusal(d.recover_signer, word(1), signature)
    assert refusal in {None, "bad_signature"}
    if refusal is None:
        assert v in (27, 28)
        assert 0 < r < N
        assert 0 < s <= N // 2
        assert d.recover_signer(word(1), signature) != bytes(20)


def test_b3_a_twin_with_a_default_signer_takes_what_ours_refuses():
    def recover_like_twin(digest, signature):
        try:
            return d.recover_signer(digest, signature)
        except Rejected:
            return bytes(20)  # what ecrecover gives

    owners: dict[str, bytes] = {}
    rng = random.Random(3)
    stolen = 0
    for _ in range(2_000):
        signature = rng.randbytes(64) + bytes([rng.choice([0, 26, 29, 255])])
        stolen += recover_like_twin(word(1), signature) == owners.get("nobody", bytes(20))
        with pytest.raises(Rejected):
            d.recover_signer(word(1), signature)
    assert stolen == 2_000


def make_certificate(packet=None, keys=KEYS[:3], epoch=0, vault=VAULT) -> d.Certificate:
    packet = packet or make_inbox_packet(VAULT, 1, NOW, EXECUTE)
    digest = d.compute_packet_digest(vault, epoch, packet.sequence, compute_commitment(packet))
    return d.Certificate(packet, vault, epoch, tuple(d.sign_digest(k, digest) for k in keys))


def test_a_certificate_of_m_operators_holds():
    certificate = make_certificate()
    digest = d.verify_certificate(certificate, OPERATORS[:4], 3)
    assert digest == d.compute_packet_digest(VAULT, 0, 1, compute_commitment(certificate.packet))


GOOD = make_certificate()
OTHER = make_inbox_packet(VAULT, 1, NOW, Unpause())


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (replace(GOOD, signatures=GOOD.signatures[:2]), "bad_certificate"),
        (make_certificate(keys=KEYS[:4]), "bad_certificate"),
        (replace(GOOD, signatures=()), "bad_certificate"),
        (make_certificate(keys=[KEYS[0], KEYS[0], KEYS[1]]), "bad_certificate"),
        (make_certificate(keys=[KEYS[0], KEYS[2], KEYS[1]]), "bad_certificate"),
        (make_certificate(keys=[KEYS[0], KEYS[1], KEYS[4]]), "bad_certificate"),
        (replace(GOOD, operator_epoch=1), "bad_certificate"),
        (replace(GOOD, packet=OTHER), "bad_certificate"),
        (replace(GOOD, packet=replace(GOOD.packet, sequence=2)), "bad_certificate"),
        (replace(GOOD, packet=replace(GOOD.packet, sequence=0)), "bad_packet"),
        (replace(GOOD, vault_id=word(5)), "bad_packet"),
        (replace(GOOD, packet=replace(GOOD.packet, source_client="vault-0")), "bad_packet"),
        (replace(GOOD, signatures=(bytes(65), *GOOD.signatures[1:])), "bad_signature"),
    ],
)
def test_a_certificate_with_one_thing_wrong_does_not_hold(certificate, reason):
    with pytest.raises(Rejected) as why:
        d.verify_certificate(certificate, OPERATORS[:4], 3)
    assert why.value.reason == reason


@pytest.mark.parametrize(
    ("operators", "threshold"),
    [
        ([], 0),
        (OPERATORS[:4], 0),
        (OPERATORS[:4], 2),
        (OPERATORS[:4], 5),
        (OPERATORS[:3], 2),
        (OPERATORS[3::-1], 3),
        ([*OPERATORS[:3], OPERATORS[2]], 3),
        ([bytes(20), *OPERATORS[:3]], 3),
        ([bytes([i]) * 20 for i in range(1, 22)], 15),
    ],
)
def test_an_operator_set_without_a_safe_quorum_is_refused(operators, threshold):
    with pytest.raises(Rejected) as why:
        d.verify_operators(operators, threshold)
    assert why.value.reason == "bad_operators"


def test_the_threshold_rule_is_three_m_above_two_n_exactly():
    for n in range(1, 21):
        assert [m for m in range(n + 2) if d.is_threshold(m, n)] == list(range(2 * n // 3 + 1, n + 1))
