"""The Solana family behind the seam of all families: objects survive their bytes, settings decide, evidence is what counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.base import Head, Point
from chains.solana import codec
from chains.solana.types import Attested, OperatorSet
from chains.solana.verifier import (
    SolanaCodec,
    SolanaSettings,
    SolanaVerifier,
    build_rules,
    decode_settings,
    encode_settings,
)
from messages.digests import compute_vault_id
from messages.errors import Rejected
from messages.hashing import sha256
from messages.outbox import TrustTier, compute_next_head
from tests.builders import OPERATOR_KEYS, OPERATORS
from tests.chains.test_solana_observations import COMMITMENTS, NOW, attest, make_heads, observe

CHAIN = "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"
ACCOUNT = sha256(b"a vault's state account")
VAULT_ID = compute_vault_id(CHAIN, ACCOUNT)
PROGRAM = sha256(b"the vault program")


def make_settings(*sets, program=PROGRAM):
    return encode_settings(SolanaSettings(program, sets))


SETTINGS = make_settings(OperatorSet(NOW - 1000, OPERATORS, 3))
VERIFIER = SolanaVerifier(build_rules(CHAIN, ACCOUNT, SETTINGS))


def make_vault_heads():
    heads = [VAULT_ID]
    for number, commitment in enumerate(COMMITMENTS, 1):
        heads.append(compute_next_head(heads[-1], number, commitment))
    return heads


HEADS = make_vault_heads()


def see(sequences, slot=100, clock=NOW, heads=HEADS):
    """Operators at these numbers; where they differ, what makes the time count is that they were at number 2 before."""
    keys = OPERATOR_KEYS[: len(sequences)]
    seen = (observe(k, n, slot + n, clock + n, heads, VAULT_ID) for k, n in zip(keys, sequences, strict=True))
    timed = [observe(k, 2, 102, NOW + 2, HEADS, VAULT_ID) for k in keys] if len(set(sequences)) > 1 else ()
    return attest(*seen, timed=timed)


def get_reason(check, *args):
    with pytest.raises(Rejected) as caught:
        check(*args)
    return caught.value.reason


def test_from_the_first_observations_to_a_proven_head_of_tier_three():
    first = see((2, 2, 2))
    trusted = VERIFIER.verify_bootstrap(first, NOW)
    assert VERIFIER.get_point(trusted) == Point(102, bytes(32), NOW + 2)
    mixed = see((3, 4, 6), 110, NOW + 5)
    trusted = VERIFIER.verify_update(trusted, mixed, NOW)
    # who saw later packets says nothing of the time at which there were only three
    assert VERIFIER.verify_head(trusted, Head(3, HEADS[3]), mixed).time == NOW + 2
    later = see((5, 5, 5), 200, NOW + 10)
    trusted = VERIFIER.verify_update(trusted, later, NOW)
    proven = VERIFIER.verify_head(trusted, Head(5, HEADS[5]), later)
    assert proven.time == NOW + 15
    assert (proven.head, proven.tier, proven.vault_id) == (HEADS[5], TrustTier(3, 3, 4), VAULT_ID)
    assert VERIFIER.is_fresh(trusted, NOW + 10**9)


def test_a_head_needs_its_own_number_and_its_own_evidence():
    update = see((5, 5, 6))
    trusted = VERIFIER.verify_update(VERIFIER.verify_bootstrap(see((2, 2, 2)), NOW), update, NOW)
    VERIFIER.verify_head(trusted, Head(5, HEADS[5]), update)
    assert get_reason(VERIFIER.verify_head, trusted, Head(6, HEADS[6]), update) == "wrong_number"
    assert get_reason(VERIFIER.verify_head, trusted, Head(5, HEADS[6]), update) == "wrong_head"
    assert get_reason(VERIFIER.verify_head, trusted, Head(5, HEADS[5]), see((5, 5, 5), 300)) == "wrong_evidence"
    alone = see((5, 5, 5))
    first = VERIFIER.verify_bootstrap(alone, NOW)
    for clock in (first.clock - 1, first.clock + 1):
        other = replace(first, clock=clock)
        assert get_reason(VERIFIER.verify_head, other, Head(5, HEADS[5]), alone) == "wrong_evidence"
    weak = replace(update, observations=update.observations[:2])
    assert get_reason(VERIFIER.verify_head, trusted, Head(5, HEADS[5]), weak) == "too_few"


def test_objects_survive_their_bytes():
    update = see((2, 3, 7))
    trusted = VERIFIER.verify_bootstrap(see((2, 2, 2)), NOW)
    bytes_of = SolanaCodec()
    assert bytes_of.decode_trusted(bytes_of.encode_trusted(trusted)) == trusted
    assert bytes_of.decode_update(bytes_of.encode_update(update)) == update
    assert bytes_of.decode_bootstrap(bytes_of.encode_bootstrap(update)) == update
    assert bytes_of.decode_proof(bytes_of.encode_proof(update)) == update
    signed = update.observations[0]
    assert codec.decode_observation(codec.encode_observation(signed)) == signed
    big = replace(signed, observation=replace(signed.observation, slot=2**64 - 1, clock=2**63, sequence=2**53 + 1))
    assert codec.decode_observation(codec.encode_observation(big)) == big


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_changed_byte_of_a_stored_update_counts_for_the_same(at, bit):
    update = see((2, 2, 2))
    VERIFIER.verify_bootstrap(codec.decode_attested(codec.encode_attested(update)), NOW)
    data = bytearray(codec.encode_attested(update))
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(Rejected):
        VERIFIER.verify_bootstrap(codec.decode_attested(bytes(data)), NOW)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"commitments":[],"observations":[]}',
        b'{"commitments":[],"observations":{},"timed":[]}',
        b'{"commitments":[],"observations":[],"timed":{}}',
        b'{"commitments":["0x00"],"observations":[],"timed":[]}',
        b'{"commitments":[],"observations":[{}],"timed":[]}',
        b'{"commitments":[],"extra":1,"observations":[],"timed":[]}',
    ],
)
def test_bytes_of_another_shape_are_refused(data):
    with pytest.raises(Rejected):
        codec.decode_attested(data)
    with pytest.raises(Rejected):
        codec.decode_trusted(data)
    with pytest.raises(Rejected):
        codec.decode_observation(data)


def test_an_empty_update_reads_and_counts_for_nothing():
    empty = codec.decode_attested(codec.encode_attested(Attested(())))
    assert get_reason(VERIFIER.verify_bootstrap, empty, NOW) == "too_few"


@pytest.mark.parametrize(
    ("chain", "account", "settings", "reason"),
    [
        ("eip155:1", ACCOUNT, SETTINGS, "bad_config"),
        (CHAIN, bytes(32), SETTINGS, "bad_address"),
        (CHAIN, ACCOUNT[:31], SETTINGS, "bad_address"),
        (CHAIN, ACCOUNT, "{}", "bad_config"),
        (CHAIN, ACCOUNT, make_settings(), "bad_config"),
        (CHAIN, ACCOUNT, make_settings(OperatorSet(5, OPERATORS, 2)), "bad_config"),
        (CHAIN, ACCOUNT, make_settings(OperatorSet(5, OPERATORS[::-1], 3)), "bad_config"),
        (CHAIN, ACCOUNT, make_settings(OperatorSet(5, OPERATORS, 3), OperatorSet(5, OPERATORS, 3)), "bad_config"),
        (CHAIN, ACCOUNT, make_settings(OperatorSet(5, OPERATORS, 3), program=bytes(32)), "bad_config"),
        (CHAIN, ACCOUNT, SETTINGS.replace('"program":"', '"program":"1'), "bad_config"),
        (CHAIN, ACCOUNT, SETTINGS.replace('"program"', '"programme"'), "bad_config"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused_at_start(chain, account, settings, reason):
    build_rules(CHAIN, ACCOUNT, SETTINGS)
    assert get_reason(build_rules, chain, account, settings) == reason


def test_the_settings_name_the_program_beside_the_operators():
    found = decode_settings(SETTINGS)
    assert found == SolanaSettings(PROGRAM, (OperatorSet(NOW - 1000, OPERATORS, 3),))
    assert encode_settings(found) == SETTINGS
    assert build_rules(CHAIN, ACCOUNT, SETTINGS).program == PROGRAM


def test_observations_of_the_vault_on_another_chain_count_for_nothing_here():
    elsewhere = compute_vault_id("solana:4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z", ACCOUNT)
    heads = make_heads()
    there = attest(*(observe(key, 2, 100, NOW, heads, elsewhere) for key in OPERATOR_KEYS[:3]))
    assert get_reason(VERIFIER.verify_bootstrap, there, NOW) == "wrong_vault"
