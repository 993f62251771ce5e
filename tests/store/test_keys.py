"""Keys and the signer's journal: one value per slot for ever, and nothing secret anywhere else (incidents D2, D4, fault 25)."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import traceback

import pytest

from chains.solana.attestations import PacketAttestation, PathEntry, StateAttestation
from messages.bodies import Execute, SeriesPrice, Unpause, encode_body
from messages.digests import compute_observation_digest, compute_vote_digest, get_address, recover_signer, sign_digest
from messages.documents import Amount, Plan, PlannedPacket, Report, Vote, compute_digest
from messages.errors import Conflict, Rejected
from messages.wire import verify_envelope
from relayer import keys
from relayer.keys import Journal, PriceSigner, Secret, Signer, Statement, create_key_file, load_key_file
from relayer.log import make_logger
from relayer.rules.quorum import Committee
from tests.builders import OPERATOR_KEYS, OPERATORS, START, make_key
from tests.rules.test_quorum import make_proposal

ID = b"\x11" * 32
VAULT = b"\x22" * 32
OTHER = b"\x23" * 32
COMMITTEE = Committee(ID, 0, OPERATORS, 3)
CANARY = bytes.fromhex("c0ffee" * 10 + "c0ff")


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "journal.db"
    Journal.create_first(path, START)
    opened = Journal(path, START, 3600)
    yield opened
    opened.close()


@pytest.fixture
def signer(journal):
    return Signer(Secret(OPERATOR_KEYS[0]), journal, ID)


def reopen(signer):
    path = signer.journal.path
    signer.journal.close()
    return Signer(Secret(OPERATOR_KEYS[0]), Journal(path, START, 3600), ID)


def make_plan(k=1, *, timeout=1000, sequence=1, vault=VAULT, price=None):
    body = Unpause() if price is None else Execute(bytes(32), (SeriesPrice(b"\x77" * 32, price),), ())
    return Plan(k, ID, ID, ID, ID, (PlannedPacket(vault, 0, sequence, timeout, encode_body(body), "test"),))


def make_votes(plan):
    digest = compute_digest(plan)
    return tuple(
        Vote(plan.k, 0, digest, OPERATORS[i], sign_digest(OPERATOR_KEYS[i], compute_vote_digest(ID, plan.k, 0, digest)))
        for i in range(3)
    )


def sign(signer, plan, proven=0):
    return signer.sign_packets(plan, make_votes(plan), COMMITTEE, {VAULT: proven, OTHER: proven}, {})


# ---- one value per slot


def test_a_vote_is_signed_and_the_same_again_is_the_same_signature(signer):
    vote = signer.sign_vote(1, 0, ID)
    assert recover_signer(compute_vote_digest(ID, 1, 0, ID), vote.signature) == OPERATORS[0]
    assert signer.sign_vote(1, 0, ID) == vote
    assert sum(kind == "vote" for kind, *_ in signer.journal.get_entries()) == 1


def test_a_second_different_vote_in_a_slot_is_refused_for_ever(signer):
    signer.sign_vote(1, 0, ID)
    with pytest.raises(Conflict) as caught:
        signer.sign_vote(1, 0, VAULT)
    assert caught.value.reason == "signed_otherwise"
    again = reopen(signer)
    with pytest.raises(Conflict):
        again.sign_vote(1, 0, VAULT)
    again.sign_vote(1, 1, VAULT)
    again.journal.close()


def test_nothing_of_a_lower_k_is_signed_after_a_higher(signer):
    signer.sign_vote(5, 0, ID)
    with pytest.raises(Rejected) as caught:
        signer.sign_vote(4, 0, ID)
    assert caught.value.reason == "old_k"
    with pytest.raises(Rejected) as caught:
        sign(signer, make_plan(4))
    assert caught.value.reason == "old_k"


def test_packets_of_one_k_come_from_one_plan(signer):
    first = sign(signer, make_plan(1))
    assert sign(signer, make_plan(1)) == first
    with pytest.raises(Conflict):
        sign(signer, make_plan(1, vault=OTHER))


def test_a_number_is_signed_anew_only_after_its_timeout_is_proven_past(signer):
    sign(signer, make_plan(1, timeout=1000))
    for proven in (0, 999):
        with pytest.raises(Conflict):
            sign(signer, make_plan(2, timeout=2000), proven)
    assert signer.journal.get_value("plan", (2).to_bytes(8, "big")) is None  # refused whole, nothing is left behind
    sign(signer, make_plan(2, timeout=2000), 1000)
    with pytest.raises(Conflict):
        sign(signer, make_plan(3, timeout=3000), 1000)


def test_a_settlement_price_is_signed_once_whatever_becomes_of_its_packet(signer):
    sign(signer, make_plan(1, price=100))
    sign(signer, make_plan(2, timeout=5000, price=100), 1000)
    with pytest.raises(Conflict):
        sign(signer, make_plan(3, timeout=9000, sequence=2, price=101), 9000)


def observe(signer, sequence=4, head=b"\x11" * 32, height=100, time=START, vault=VAULT):
    return signer.sign_observation(vault, sequence, head, height, time)


def test_a_head_is_signed_again_at_later_heights_and_another_head_of_its_number_never(signer):
    first = observe(signer)
    assert recover_signer(compute_observation_digest(VAULT, 100, START, 4, b"\x11" * 32), first) == OPERATORS[0]
    entries = len(signer.journal.get_entries())
    assert observe(signer, height=150, time=START + 20) != first
    assert observe(signer) == first
    assert len(signer.journal.get_entries()) == entries  # nothing new was said
    for open_it in (lambda: signer, lambda: reopen(signer)):
        again = open_it()
        with pytest.raises(Conflict) as caught:
            observe(again, head=b"\x22" * 32, height=200)
        assert caught.value.reason == "signed_otherwise"
        observe(again, head=b"\x22" * 32, vault=OTHER)
    again.journal.close()


def test_no_lower_number_of_a_vault_is_signed_after_a_higher(signer):
    observe(signer, 5)
    observe(signer, 1, vault=OTHER)
    for open_it in (lambda: signer, lambda: reopen(signer)):
        again = open_it()
        with pytest.raises(Rejected) as caught:
            observe(again, 4, head=b"\x22" * 32, height=900, time=START + 900)
        assert caught.value.reason == "old_number"
        observe(again, 5, height=900)
    observe(again, 2**32, head=b"\x33" * 32)
    with pytest.raises(Rejected):
        observe(again, 2**32 - 1, head=b"\x34" * 32)
    again.journal.close()


def test_a_key_in_quarantine_still_says_what_it_reads_and_never_two_heads(signer):
    """Else n - m + 1 silent keys that wait for the time of a vault without headers would hold that time up themselves."""
    signer.journal.record_quarantine(START, "test")
    assert observe(signer, 5) == observe(signer, 5)
    with pytest.raises(Conflict):
        observe(signer, 5, head=b"\x22" * 32)
    with pytest.raises(Rejected) as caught:
        observe(signer, 4)
    assert caught.value.reason == "old_number"
    with pytest.raises(Rejected) as caught:
        signer.sign_vote(1, 0, b"\x11" * 32)
    assert caught.value.reason == "quarantine"


def attest(signer, height=7, time=START, vault=VAULT, entries=((b"\1" * 32, b"\2" * 32),)):
    packets = PacketAttestation(height, tuple(PathEntry(*entry) for entry in entries))
    return signer.sign_attestations(vault, StateAttestation(height, time), packets)


def test_a_key_attests_one_vault_one_time_a_height_and_one_commitment_a_path(signer):
    state, packets = attest(signer)
    assert attest(signer) == (state, packets)
    attest(signer, 8, START + 1)
    for other in (
        {"time": START + 1},
        {"vault": OTHER},
        {"height": 9, "entries": ((b"\1" * 32, b"\3" * 32),)},
        {"entries": ((b"\1" * 32, bytes(32)),)},
    ):
        with pytest.raises(Conflict) as caught:
            attest(signer, **other)
        assert caught.value.reason == "signed_otherwise"
    again = reopen(signer)
    assert attest(again) == (state, packets)
    with pytest.raises(Conflict):
        attest(again, time=START + 1)
    again.journal.record_quarantine(START, "test")
    with pytest.raises(Rejected):
        attest(again, 9)
    again.journal.close()


def test_packets_without_m_votes_are_not_signed(signer):
    plan = make_plan(1)
    for votes in (make_votes(plan)[:2], (), make_votes(make_plan(1, timeout=7))):
        with pytest.raises(Rejected):
            signer.sign_packets(plan, votes, COMMITTEE, {}, {})
    assert not any(kind in ("plan", "packet") for kind, *_ in signer.journal.get_entries())


def test_the_journal_is_written_before_the_signature_exists(signer, monkeypatch):
    seen = []
    monkeypatch.setattr(keys, "sign_digest", lambda key, digest: seen.append(len(signer.journal.get_entries())) or b"")
    before = len(signer.journal.get_entries())
    signer.sign_vote(1, 0, ID)
    assert seen == [before + 1]


def test_a_proposal_is_made_once_per_slot_and_only_by_its_own_door(signer):
    envelope = signer.sign_proposal(make_proposal(1, 0, OPERATORS[0]))
    verify_envelope(envelope, OPERATORS, ID)
    signer.sign_proposal(make_proposal(1, 0, OPERATORS[0]))
    with pytest.raises(Conflict):
        signer.sign_proposal(make_proposal(1, 0, OPERATORS[0], plan_digest=VAULT))
    with pytest.raises(Rejected) as caught:
        signer.sign_envelope("proposal", b"anything")
    assert caught.value.reason == "proposal_door"


def test_envelopes_are_numbered_and_bound_to_a_boot_that_only_grows(signer):
    first, second = signer.sign_envelope("vote", b"x"), signer.sign_envelope("vote", b"x")
    assert (first.sequence, second.sequence) == (1, 2)
    again = reopen(signer)
    third = again.sign_envelope("vote", b"x")
    assert third.boot_id > first.boot_id
    assert third.sequence == 1
    again.journal.close()


def test_the_signer_has_no_door_for_a_digest_or_a_public_key():
    public = {name: m for name, m in inspect.getmembers(Signer, inspect.isfunction) if not name.startswith("_")}
    doors = {
        "sign_vote",
        "sign_packets",
        "sign_envelope",
        "sign_proposal",
        "sign_parameters",
        "sign_observation",
        "sign_attestations",
    }
    assert set(public) == doors
    names = {p for m in public.values() for p in inspect.signature(m).parameters}
    assert not any("public" in name or name in ("digest", "address", "key") for name in names)


def test_signatures_are_deterministic_so_that_no_nonce_repeats_over_two_messages(signer):
    r_values = {signer.sign_vote(k, 0, ID).signature[:32] for k in range(1, 200)}
    assert len(r_values) == 199  # RFC 6979: another message, another nonce


# ---- memory


def test_a_changed_or_shortened_journal_is_refused(signer):
    signer.sign_vote(1, 0, ID)
    path = signer.journal.path
    signer.journal.close()
    data = path.read_bytes()
    for spoiled in (data.replace(ID, VAULT, 1), data.replace(b"vote", b"vole", 1)):
        assert spoiled != data
        path.write_bytes(spoiled)
        with pytest.raises(Rejected) as caught:
            Journal(path, START, 60)
        assert caught.value.reason in ("chain_broken", "corrupt")
    path.write_bytes(data)
    Journal(path, START, 60).close()


def test_entries_can_be_neither_changed_nor_deleted_even_by_us(journal):
    import sqlite3

    for statement in ("UPDATE entries SET value = x''", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError):
            journal._db.execute(statement)


def test_a_lost_journal_starts_in_quarantine_and_signs_nothing(tmp_path):
    journal = Journal(tmp_path / "new.db", START, 3600)
    signer = Signer(Secret(OPERATOR_KEYS[0]), journal, ID)
    for act in (lambda: signer.sign_vote(1, 0, ID), lambda: sign(signer, make_plan(1))):
        with pytest.raises(Rejected) as caught:
            act()
        assert caught.value.reason == "quarantine"
    assert not journal.record_release({VAULT: START + 3600}, 9)  # not past it yet
    assert not journal.record_release({VAULT: START + 9999, OTHER: 0}, 9)  # one chain is behind
    assert not journal.record_release({}, 9)
    assert journal.record_release({VAULT: START + 3601, OTHER: START + 3601}, 9)
    with pytest.raises(Rejected):
        signer.sign_vote(9, 0, ID)  # below what was seen meanwhile
    signer.sign_vote(10, 0, ID)
    journal.close()
    again = Journal(tmp_path / "new.db", START, 3600)
    assert again.quarantine_until is None
    again.close()


def test_a_first_journal_is_made_once(tmp_path, journal):
    assert journal.quarantine_until is None
    with pytest.raises(Rejected) as caught:
        Journal.create_first(journal.path, START)
    assert caught.value.reason == "journal_exists"


def test_a_tip_tells_whether_a_journal_went_back_in_time(signer, tmp_path):
    old = signer.journal.tip
    signer.sign_vote(1, 0, ID)
    assert signer.journal.is_known_tip(old)
    assert signer.journal.is_known_tip(signer.journal.tip)
    Journal.create_first(tmp_path / "other.db", START + 5)
    other = Journal(tmp_path / "other.db", START, 60)
    assert not other.is_known_tip(signer.journal.tip)
    other.close()


def test_statements_of_a_batch_are_written_all_or_none(journal):
    journal.record_statements([Statement("vote", b"a", b"1")], {})
    with pytest.raises(Conflict):
        journal.record_statements([Statement("vote", b"b", b"1"), Statement("vote", b"a", b"2")], {})
    assert journal.get_value("vote", b"b") is None


def test_a_batch_that_contradicts_itself_is_not_written(journal):
    with pytest.raises(Conflict) as caught:
        journal.record_statements([Statement("settlement", b"a", b"1"), Statement("settlement", b"a", b"2")], {})
    assert caught.value.reason == "signed_otherwise"
    assert journal.get_value("settlement", b"a") is None
    journal.record_statements([Statement("settlement", b"a", b"1"), Statement("settlement", b"a", b"1")], {})


def test_a_price_signer_says_one_value_per_stamp():
    signer = PriceSigner(Secret(make_key("reporter")))
    report = Report(ID, VAULT, 60, Amount(5), Amount(7), Amount(1))
    assert signer.sign_report(report) == signer.sign_report(report)
    with pytest.raises(Conflict):
        signer.sign_report(Report(ID, VAULT, 60, Amount(5), Amount(8), Amount(1)))
    signer.sign_report(Report(ID, VAULT, 120, Amount(5), Amount(8), Amount(1)))


# ---- key files


def test_a_key_file_opens_with_its_password_and_is_private(tmp_path):
    path = tmp_path / "operator.json"
    address = create_key_file(path, Secret(CANARY), Secret(b"pass"), is_throwaway=True)
    assert address == get_address(CANARY)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key_file(path, Secret(b"pass"), is_throwaway=True).reveal() == CANARY
    with pytest.raises(Rejected) as caught:
        create_key_file(path, Secret(CANARY), Secret(b"pass"), is_throwaway=True)
    assert caught.value.reason == "key_file"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda p: p.chmod(0o644), "file_mode"),
        (lambda p: p.unlink(), "key_file"),
        (lambda p: p.write_text("{}"), "key_file"),
        (lambda p: p.write_text("[" * 16_000), "key_file"),
        (lambda p: p.write_bytes(b"\xff" * 100), "key_file"),
        (lambda p: p.write_text("x" * 20_000), "key_file"),
        (lambda p: p.write_text(p.read_text().replace('"version": 3', '"version": 4')), "key_file"),
        (lambda p: p.write_text(p.read_text().replace("scrypt", "pbkdf2")), "key_file"),
    ],
)
def test_a_bad_key_file_is_refused_with_a_reason(tmp_path, spoil, reason):
    path = tmp_path / "operator.json"
    create_key_file(path, Secret(CANARY), Secret(b"pass"), is_throwaway=True)
    spoil(path)
    with pytest.raises(Rejected) as caught:
        load_key_file(path, Secret(b"pass"), is_throwaway=True)
    assert caught.value.reason == reason


def test_a_cheaply_guarded_key_file_is_refused_outside_the_demo(tmp_path):
    path = tmp_path / "operator.json"
    create_key_file(path, Secret(CANARY), Secret(b"pass"), is_throwaway=True)
    with pytest.raises(Rejected) as caught:
        load_key_file(path, Secret(b"pass"))
    assert caught.value.reason == "weak_key_file"


def test_a_wrong_password_opens_nothing_and_shows_nothing(tmp_path):
    path = tmp_path / "operator.json"
    right, wrong = Secret(b"right-" + CANARY.hex().encode()), Secret(b"wrong-" + CANARY.hex().encode())
    create_key_file(path, Secret(CANARY), right, is_throwaway=True)
    with pytest.raises(Rejected) as caught:
        load_key_file(path, wrong, is_throwaway=True)
    assert caught.value.reason == "bad_password"
    assert CANARY.hex() not in "".join(traceback.format_exception(caught.value))


def test_a_broken_random_generator_makes_no_key(monkeypatch):
    monkeypatch.setattr(keys.os, "urandom", bytes)
    with pytest.raises(RuntimeError):
        keys.generate_private_key()


# ---- the canary


def test_no_artefact_of_a_signer_holds_its_key(tmp_path):
    Journal.create_first(tmp_path / "journal.db", START)
    journal = Journal(tmp_path / "journal.db", START, 60)
    signer = Signer(Secret(CANARY), journal, ID)
    create_key_file(tmp_path / "key.json", Secret(CANARY), Secret(b"password-canary"), is_throwaway=True)
    stream = io.StringIO()
    log = make_logger(level="debug", stream=stream)
    log.info("event", signer=signer, private_key=CANARY.hex(), password="password-canary", key=Secret(CANARY))
    signer.sign_vote(1, 0, ID)
    try:
        signer.sign_vote(1, 0, VAULT)
    except Conflict as error:
        stream.write("".join(traceback.format_exception(error)) + repr(error) + repr(signer) + repr(vars(signer)))
    for broken in (
        lambda: pickle.dumps(Secret(CANARY)),
        lambda: pickle.dumps(signer),
        lambda: copy.deepcopy(Secret(CANARY)),
    ):
        with pytest.raises(TypeError):
            broken()
    envelope = signer.sign_envelope("vote", b"x")
    journal.close()
    text = stream.getvalue() + repr(envelope)
    for needle in (CANARY.hex(), repr(CANARY)[2:-1], "password-canary", str(int.from_bytes(CANARY, "big"))):
        assert needle not in text
    for file in tmp_path.iterdir():
        data = file.read_bytes()
        assert CANARY not in data
        assert CANARY.hex().encode() not in data.lower()
        assert b"password-canary" not in data
