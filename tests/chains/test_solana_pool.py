"""The pool of operators' statements: bounded, one head for each number, evidence of two."""

from __future__ import annotations

from dataclasses import replace

import coincurve
import pytest

from chains.solana.codec import decode_observation
from chains.solana.observations import compute_observation_digest
from chains.solana.pool import KEPT_PER_OPERATOR, MAX_HEADS_PER_OPERATOR, Pool, verify_evidence
from chains.solana.types import Observation, OperatorSet, SignedObservation
from chains.solana.verifier import SolanaRules
from messages.digests import get_address, sign_digest
from messages.errors import Rejected

NOW = 1_800_000_000
KEYS = sorted((coincurve.PrivateKey(bytes([n]) * 32).secret for n in range(1, 6)), key=get_address)
OPERATORS, STRANGER = tuple(get_address(k) for k in KEYS[:4]), KEYS[4]
RULES = SolanaRules(
    "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", b"\x07" * 32, (OperatorSet(0, OPERATORS, 3),), b"\x09" * 32
)


def make(key: bytes, sequence: int = 5, clock: int = NOW, head: bytes = b"\x11" * 32) -> SignedObservation:
    observation = Observation(RULES.vault_id, clock - NOW + 10_000, clock, sequence, head)
    return SignedObservation(observation, get_address(key), sign_digest(key, compute_observation_digest(observation)))


def test_a_new_statement_is_news_once() -> None:
    pool = Pool(RULES)
    first = pool.add(make(KEYS[0]), NOW)
    assert (first.operator, first.sequence, first.is_news, first.evidence) == (OPERATORS[0], 5, True, None)
    assert not pool.add(make(KEYS[0]), NOW).is_news
    assert pool.get_observations() == (make(KEYS[0]),)


def test_the_same_head_later_is_news_and_replaces_the_earlier() -> None:
    pool = Pool(RULES)
    pool.add(make(KEYS[0]), NOW)
    assert pool.add(make(KEYS[0], clock=NOW + 20), NOW + 20).is_news
    assert not pool.add(make(KEYS[0], clock=NOW + 10), NOW + 20).is_news
    assert pool.get_observations() == (make(KEYS[0], clock=NOW + 20),)


def test_a_second_head_for_one_number_is_evidence_and_is_not_kept() -> None:
    pool = Pool(RULES)
    pool.add(make(KEYS[1]), NOW)
    second = pool.add(make(KEYS[1], head=b"\x22" * 32, clock=NOW + 1), NOW)
    assert second.evidence is not None
    assert not second.is_news
    assert verify_evidence(RULES, *second.evidence) == OPERATORS[1]
    assert pool.get_observations() == (make(KEYS[1]),)
    with pytest.raises(Rejected) as refused:
        verify_evidence(RULES, second.evidence[0], second.evidence[0])
    assert refused.value.reason == "no_equivocation"


def test_two_operators_with_two_heads_are_no_evidence() -> None:
    pool = Pool(RULES)
    pool.add(make(KEYS[0]), NOW)
    assert pool.add(make(KEYS[1], head=b"\x22" * 32), NOW).evidence is None


@pytest.mark.parametrize(
    ("signed", "reason"),
    [
        (make(STRANGER), "unknown_signer"),
        (make(KEYS[0], clock=NOW + 31), "future"),
        (SignedObservation(make(KEYS[0]).observation, OPERATORS[1], make(KEYS[0]).signature), "unknown_signer"),
    ],
)
def test_what_no_operator_signed_is_refused(signed: SignedObservation, reason: str) -> None:
    pool = Pool(RULES)
    with pytest.raises(Rejected) as refused:
        pool.add(signed, NOW)
    assert refused.value.reason == reason
    assert pool.get_observations() == ()


def test_an_operator_of_a_former_set_does_not_count_after_the_rotation() -> None:
    sets = (
        OperatorSet(0, OPERATORS, 3),
        OperatorSet(NOW + 100, tuple(sorted((*OPERATORS[1:], get_address(STRANGER)))), 3),
    )
    rules = replace(RULES, sets=sets)
    pool = Pool(rules)
    pool.add(make(KEYS[0]), NOW)
    pool.add(make(KEYS[1]), NOW)
    assert len(pool.get_observations()) == 2
    pool.add(make(STRANGER, clock=NOW + 100), NOW + 100)
    assert pool.get_observations() == (make(STRANGER, clock=NOW + 100),)
    with pytest.raises(Rejected):
        pool.add(make(KEYS[0], clock=NOW + 101), NOW + 100)


def test_an_operator_fills_no_more_than_its_own_places() -> None:
    pool = Pool(RULES)
    pool.add(make(KEYS[1]), NOW)
    for sequence in range(1, MAX_HEADS_PER_OPERATOR + 20):
        pool.add(make(KEYS[0], sequence=sequence), NOW)
    found = pool.get_observations()
    assert [s.observation.sequence for s in found if s.operator == OPERATORS[0]] == [
        MAX_HEADS_PER_OPERATOR + 19 - i for i in range(KEPT_PER_OPERATOR)
    ]
    assert make(KEYS[1]) in found
    assert pool.add(make(KEYS[0], sequence=1, head=b"\x33" * 32), NOW).evidence is None  # forgotten, the newest are not
    newest = MAX_HEADS_PER_OPERATOR + 19
    assert pool.add(make(KEYS[0], sequence=newest, head=b"\x33" * 32), NOW).evidence is not None


def test_evidence_of_another_vault_is_refused() -> None:
    other = replace(RULES, vault=b"\x08" * 32)
    pool = Pool(RULES)
    pool.add(make(KEYS[1]), NOW)
    evidence = pool.add(make(KEYS[1], head=b"\x22" * 32), NOW).evidence
    assert evidence is not None
    assert decode_observation(evidence[0]) == make(KEYS[1])
    with pytest.raises(Rejected) as refused:
        verify_evidence(other, *evidence)
    assert refused.value.reason == "wrong_vault"
