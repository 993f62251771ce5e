"""A signed plan whose plan is known is read by its rest alone, and decides as if all of it were read."""

from __future__ import annotations

import random

import pytest

from messages.documents import Plan, PlannedPacket, Vote, decode_document, encode_document
from messages.errors import Rejected
from relayer.rules.statements import PacketSignature, SignedPlan
from relayer.tasks.attest import read_signed_plan

PLAN = Plan(
    5,
    bytes([1]) * 32,
    bytes([2]) * 32,
    bytes([3]) * 32,
    bytes([4]) * 32,
    (PlannedPacket(bytes([1]) * 32, 0, 9, 1_800, bytes(64), 'a "purpose" with \\ and ,"schema":"'),),
)
VOTES = tuple(Vote(5, 0, bytes([7]) * 32, bytes([i]) * 20, bytes([9]) * 65) for i in (1, 2, 3))
SIGNATURES = (PacketSignature(bytes([1]) * 32, 9, bytes([1]) * 20, bytes([9]) * 65),)
SIGNED = SignedPlan(PLAN, VOTES, SIGNATURES)
BODY = encode_document(SIGNED)


@pytest.mark.parametrize("signed", [SIGNED, SignedPlan(PLAN, (), ()), SignedPlan(PLAN, VOTES, ())])
def test_what_is_read_is_what_was_said(signed):
    for _ in range(2):  # the second time the plan is known
        assert read_signed_plan(encode_document(signed)) == signed


def decode_or_none(read, body):
    try:
        return read(body)
    except Rejected:
        return None


def test_every_change_is_refused_or_read_as_by_the_whole():
    dice = random.Random(7)
    accepted = 0
    bodies = [BODY[:at] + bytes([BODY[at] ^ 1 << dice.randrange(8)]) + BODY[at + 1 :] for at in range(len(BODY))]
    bodies += [BODY[:at] for at in range(0, len(BODY), 7)] + [BODY + b" ", b" " + BODY, b"{}", b""]
    for body in bodies:
        whole = decode_or_none(lambda b: decode_document(SignedPlan, b), body)
        assert decode_or_none(read_signed_plan, body) == whole
        accepted += whole is not None
    assert accepted > 100  # other digits are another plan, vote or signature


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.replace(b',"votes":', b',"plan":{},"votes":'),
        lambda b: b.replace(b'{"plan":', b'{"plan":{},"plan":'),
        lambda b: b.replace(b',"schema":"optsettle/signed-plan/1"', b""),
        lambda b: b.replace(b',"signatures":[', b',"schema":"optsettle/signed-plan/1","signatures":['),
        lambda b: b.replace(b"optsettle/plan/1", b"optsettle/plan/2"),
    ],
)
def test_a_key_too_many_or_missing_is_refused_whatever_is_known(change):
    assert read_signed_plan(BODY) == SIGNED
    assert change(BODY) != BODY
    with pytest.raises(Rejected):
        read_signed_plan(change(BODY))
