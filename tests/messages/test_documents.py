"""Documents: one canonical form, strict decoding, golden digests (data.md 1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from messages.documents import (
    Amount,
    ControlParameters,
    Cut,
    CutEntry,
    MarketSnapshot,
    OpenPacket,
    OpenPackets,
    Parameters,
    Plan,
    PlannedPacket,
    Proposal,
    Report,
    TierParameters,
    Vote,
    compute_digest,
    decode_document,
    encode_document,
)
from messages.errors import Rejected
from tests.builders import ETH, EXAMPLE_STAMP, START, make_mark, make_parameters, make_report, make_vault

ENTRY = CutEntry(bytes([1]) * 32, 7, bytes([2]) * 32, START, 3, bytes([4]) * 32)
CUT = Cut((ENTRY,))
PARAMETERS = make_parameters(
    [make_vault(0), make_vault(1)], controls=(ControlParameters(bytes([1]) * 32, bytes([0, 1, 255])),)
)
MARKET = MarketSnapshot(
    START, (make_report(EXAMPLE_STAMP, 2000),), (make_mark(EXAMPLE_STAMP, START + 86_400, 2000, underlying=ETH),), ()
)
PLAN = Plan(
    5,
    bytes([1]) * 32,
    bytes([2]) * 32,
    bytes([3]) * 32,
    bytes([4]) * 32,
    (PlannedPacket(bytes([1]) * 32, 0, 9, START + 1_800, bytes(32), "settle"),),
)
VOTE = Vote(5, 0, bytes([7]) * 32, bytes([8]) * 20, bytes([9]) * 65)
OPEN = OpenPackets((OpenPacket(bytes([1]) * 32, 0, 8, START, bytes(64), bytes([7]) * 32, (VOTE,)),))
PROPOSAL = Proposal(5, 0, bytes([8]) * 20, CUT, (), MARKET, compute_digest(PARAMETERS), OPEN, compute_digest(PLAN))

DOCUMENTS = {
    "cut": CUT,
    "market": MARKET,
    "parameters": PARAMETERS,
    "plan": PLAN,
    "vote": VOTE,
    "open": OPEN,
    "proposal": PROPOSAL,
}
GOLDEN = {
    "cut": "e38e0ec1b7fb8eaf27d419c2f1d443a15c121b7293d439340ff136c4ae65121b",
    "market": "09982727b598ff70901a3fa1e3bfd46976256ad8eedb6e53b2f9bd0cbad15f0a",
    "open": "b200c5986745df9f31f55974ec11d40faa110273b7424ca66968f714a1eda838",
    "parameters": "37165fbe99966f722eabd9268e3b883cc8bda6c769e333727cc90d19651526a4",
    "plan": "5d04607e5360ecaa6f37b39e1f7c08365af555c58c359292116c26feee421b29",
    "proposal": "c55819429725b975ff3aee86c1a2767640f22483b5ec2aca6856aad8e9b3f64a",
    "vote": "9fb5b838cb6c00c51357f76d9e90ae3feb777f8f492011f5f1d9ff517fcab422",
}


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_a_document_comes_back_as_it_was_and_has_its_golden_digest(name):
    document = DOCUMENTS[name]
    data = encode_document(document)
    assert decode_document(type(document), data) == document
    assert compute_digest(document).hex() == GOLDEN[name]


def test_the_canonical_form_is_readable_and_sorted():
    assert encode_document(CUT) == (
        b'{"entries":[{"header_hash":"0x'
        + b"02" * 32
        + b'","height":7,"outbox_head":"0x'
        + b"04" * 32
        + b'","outbox_sequence":3,"time":1800000000,"vault_id":"0x'
        + b"01" * 32
        + b'"}],"schema":"optsettle/cut/1"}'
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"height":7', b'"height":"7"'),
        (b'"height":7', b'"height":7.0'),
        (b'"height":7', b'"height":9007199254740993'),
        (b'"height":7', b'"height":true'),
        (b'"height":7', b'"height":7,"heigth":7'),
        (b'"height":7,', b""),
        (b'"header_hash":"0x02', b'"header_hash":"0X02'),
        (b'"header_hash":"0x02', b'"header_hash":"02'),
        (b"optsettle/cut/1", b"optsettle/cut/2"),
        (b'{"entries"', b'{ "entries"'),
        (b'"schema":"optsettle/cut/1"', b'"schema":"optsettle/cut/1","x":1'),
        (b'"entries":[', b'"entries":[1,'),
    ],
)
def test_a_document_with_one_thing_wrong_is_refused(old, new):
    data = encode_document(CUT)
    assert old in data
    with pytest.raises(Rejected):
        decode_document(Cut, data.replace(old, new, 1))


@pytest.mark.parametrize("text", ["01", "+1", "1.0", "", "0x1", " 1", "-0", "1" * 101])
def test_an_amount_is_one_decimal_string_and_nothing_else(text):
    data = encode_document(PARAMETERS)
    good = b'"minimum_notional":"1000000"'
    assert good in data
    assert decode_document(Parameters, data) == PARAMETERS
    with pytest.raises(Rejected):
        decode_document(Parameters, data.replace(good, f'"minimum_notional":"{text}"'.encode()))


TIERS = (TierParameters(2, 1, 2, 3, 4, Amount(10**20)), TierParameters(3, 5, 6, 7, 8, Amount(10**19)))


def test_parameters_with_tiers_come_back_as_they_were_and_have_another_digest():
    named = replace(PARAMETERS, tiers=TIERS)
    data = encode_document(named)
    assert b'"tiers":[{"haircut_ppm":1,' in data
    assert decode_document(Parameters, data) == named
    assert compute_digest(named) != compute_digest(PARAMETERS)


def test_a_table_that_came_later_is_left_out_where_it_is_empty_and_refused_where_it_is_written_so():
    data = encode_document(PARAMETERS)
    assert b"tiers" not in data  # the golden digest above is that of before
    assert decode_document(Parameters, data).tiers == ()
    for broken in (b'"tiers":[],"underlyings"', b'"tiers":"","underlyings"', b'"tiers":0,"underlyings"'):
        with pytest.raises(Rejected):
            decode_document(Parameters, data.replace(b'"underlyings"', broken, 1))


def test_a_tier_with_a_key_too_many_or_too_few_is_refused():
    data = encode_document(replace(PARAMETERS, tiers=TIERS))
    for old, new in ((b'"level":2,', b""), (b'"level":2', b'"level":2,"lever":2'), (b'"level":2', b'"level":-2')):
        assert old in data
        with pytest.raises(Rejected):
            decode_document(Parameters, data.replace(old, new, 1))


def test_a_document_of_another_kind_is_refused():
    with pytest.raises(Rejected):
        decode_document(Plan, encode_document(CUT))


def test_a_large_or_negative_amount_keeps_every_digit():
    report = MARKET.reports[0].report
    big = replace(report, cumulative_e8_seconds=Amount(2**200 + 1), spot_e8=Amount(-3))
    assert decode_document(Report, encode_document(big)) == big


def test_changing_any_field_changes_the_digest():
    seen = {compute_digest(PLAN)}
    for change in (
        {"k": 6},
        {"cut_digest": bytes(32)},
        {"market_digest": bytes(32)},
        {"parameters_digest": bytes(32)},
        {"open_packets_digest": bytes(32)},
        {"packets": ()},
        {"packets": (replace(PLAN.packets[0], purpose="lift"),)},
        {"packets": (replace(PLAN.packets[0], value=bytes(33)),)},
    ):
        seen.add(compute_digest(replace(PLAN, **change)))
    assert len(seen) == 9


def test_size_is_bounded_before_anything_is_parsed():
    with pytest.raises(Rejected) as caught:
        decode_document(Cut, encode_document(CUT), max_bytes=50)
    assert caught.value.reason == "size"


def test_a_remembered_digest_is_the_documents_own():
    documents = [replace(VOTE, k=k) for k in range(100)]
    digests = [compute_digest(d) for d in documents]
    assert len(set(digests)) == 100
    assert [compute_digest(d) for d in reversed(documents)] == digests[::-1]
    # one that takes the place in memory of another does not take its digest
    assert {compute_digest(replace(VOTE, k=k)) for k in range(100)} == set(digests)
