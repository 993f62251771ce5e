"""The store: all or nothing, nothing forgotten, nothing changed unseen, and quick to open again."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chains.base import Blame, Point, SignedTx
from messages.bodies import Deposited
from messages.digests import Certificate
from messages.documents import Vote
from messages.errors import Rejected
from relayer import database
from relayer.database import EXIT_STORE, StoreFailure, decode_u64, encode_u64, open_reader, verify_sqlite_version
from relayer.migrations import store_migrations
from relayer.states import VaultStates
from relayer.store import SNAPSHOT_EVERY, HeaderRecord, HeadRecord, PacketRecord, Store
from tests.builders import START, TOKEN, Outbox, make_account, make_parameters, make_vault

ROOT = Path(__file__).resolve().parents[2]
VAULT = make_vault(1)
CHAIN = VAULT.chain
ALICE = make_account("alice")
IN_SOAK = pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "thorough", reason="long: make soak runs it")


def make_facts(count):
    outbox = Outbox(VAULT)
    for i in range(count):
        outbox.put(Deposited(ALICE, TOKEN, i + 1))
    return outbox.vault_id, outbox.facts()


def make_point(height):
    return Point(height, height.to_bytes(32, "big"), START + height)


def make_header(height, kind="update"):
    return HeaderRecord(make_point(height), kind, b"claim %d" % height, b"trusted %d" % height)


def make_head(vault_id, height, facts, cursor_sequence=0):
    sequence = facts[-1].sequence if facts else cursor_sequence
    return HeadRecord(
        vault_id, make_point(height), sequence, facts[-1].head if facts else vault_id, b"proof %d" % height
    )


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "node.db")
    yield opened
    opened.close()


# ---- opening


def test_wal_full_and_foreign_keys_are_on_and_the_file_is_private(store):
    get = lambda name: store._db.execute(f"PRAGMA {name}").fetchone()[0]  # noqa: E731
    assert (get("journal_mode"), get("synchronous"), get("foreign_keys")) == ("wal", 2, 1)
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert Path(f"{store.path}-wal").stat().st_mode & 0o077 == 0


def test_a_second_process_is_refused_while_the_first_holds_the_file(store):
    code = f"from pathlib import Path\nfrom relayer.store import Store\nStore(Path({str(store.path)!r}))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"in use by another process ({os.getpid()})" in result.stderr


def test_a_second_opening_in_one_process_is_refused_and_after_closing_it_works(tmp_path):
    first = Store(tmp_path / "node.db")
    with pytest.raises(Rejected) as caught:
        Store(tmp_path / "node.db")
    assert caught.value.reason == "in_use"
    first.close()
    Store(tmp_path / "node.db").close()


def test_a_file_that_others_may_read_is_refused(tmp_path):
    Store(tmp_path / "node.db").close()
    (tmp_path / "node.db").chmod(0o640)
    with pytest.raises(Rejected) as caught:
        Store(tmp_path / "node.db")
    assert caught.value.reason == "file_mode"


def test_a_store_of_a_newer_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "node.db"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('relayer_store', '9999_x', '')"
        )
    before = path.read_bytes()
    with pytest.raises(Rejected) as caught:
        Store(path)
    assert caught.value.reason == "too_new"
    assert "9999_x" in str(caught.value)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_refused(tmp_path):
    path = tmp_path / "node.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE cats (name TEXT)")
    path.chmod(0o600)
    with pytest.raises(Rejected) as caught:
        Store(path)
    assert caught.value.reason == "too_new"


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "node.db"
    path.write_bytes(b"hello" * 1000)
    path.chmod(0o600)
    with pytest.raises(Rejected) as caught:
        Store(path)
    assert caught.value.reason == "corrupt"


def test_a_network_file_system_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "get_file_system", lambda path: "nfs4")
    with pytest.raises(Rejected) as caught:
        Store(tmp_path / "node.db")
    assert caught.value.reason == "network_file_system"


def test_the_file_system_of_a_path_is_named(tmp_path):
    assert database.get_file_system(Path("/proc")) in ("proc", "")
    assert database.get_file_system(tmp_path) not in database._NETWORK_FILE_SYSTEMS


@pytest.mark.parametrize(
    ("version", "single", "ok"),
    [
        ((3, 6, 23), True, False),
        ((3, 7, 0), True, True),
        ((3, 7, 0), False, False),
        ((3, 40, 1), True, True),
        ((3, 40, 1), False, False),
        ((3, 51, 2), False, False),
        ((3, 51, 3), False, True),
        ((3, 52, 0), False, False),
        ((3, 53, 0), False, True),
    ],
)
def test_versions_with_the_wal_reset_bug_need_the_single_writer_rule(version, single, ok):
    if ok:
        verify_sqlite_version(version, is_single_writer=single)
    else:
        with pytest.raises(Rejected) as caught:
            verify_sqlite_version(version, is_single_writer=single)
        assert caught.value.reason == "sqlite_version"


def test_migrations_are_named_in_order_and_applied_once(tmp_path):
    names = database.get_migration_names(store_migrations)
    assert names == sorted(names)
    for _ in range(2):
        store = Store(tmp_path / "node.db")
        rows = store._db.execute("SELECT name FROM _sqlite_migrations ORDER BY id").fetchall()
        assert [r[0] for r in rows] == names
        store.close()


def test_snapshots_of_an_earlier_version_are_forgotten_and_folded_again(tmp_path):
    vault_id, facts = make_facts(3)
    store = Store(tmp_path / "node.db")
    head = make_head(vault_id, 5, facts)
    store.record_collected(
        CHAIN, [make_header(1, "bootstrap"), make_header(5)], head, facts, [(3, b"optsettle/state/1..")]
    )
    assert store.get_snapshot(vault_id, 3)[0] == 3
    store._db.execute("DELETE FROM _sqlite_migrations WHERE name = '0005_snapshots_of_version_2'")
    store.close()
    again = Store(tmp_path / "node.db")
    assert again.get_snapshot(vault_id, 3) is None
    assert list(again.iterate_facts(vault_id)) == list(facts)
    again.close()


# ---- header, head and facts


def test_header_head_and_facts_come_back_after_a_restart(store, tmp_path):
    vault_id, facts = make_facts(3)
    store.record_collected(CHAIN, [make_header(1, "bootstrap"), make_header(5)], make_head(vault_id, 5, facts), facts)
    store.close()
    again = Store(tmp_path / "node.db")
    assert list(again.iterate_facts(vault_id)) == list(facts)
    assert again.get_fact(vault_id, 2) == facts[1]
    assert again.get_fact_head(vault_id, 0) == vault_id
    assert again.get_fact_head(vault_id, 3) == facts[2].head
    assert again.get_cursor(vault_id).sequence == 3
    assert again.get_trusted(CHAIN) == (make_point(5), b"trusted 5")
    assert again.get_trusted(CHAIN, below_height=5) == (make_point(1), b"trusted 1")
    assert again.get_trusted_at(CHAIN, 5) == (make_point(5), b"trusted 5")
    assert again.get_trusted_at(CHAIN, 4) is None
    assert again.get_header_claim(CHAIN, 5) == b"claim 5"
    assert again.get_head(vault_id).proof == b"proof 5"
    assert again.get_head_covering(vault_id, 2).point.height == 5
    assert again.get_head_covering(vault_id, 4) is None
    assert again.verify_all() == {"headers": 2, "heads": 1, "facts": 3}
    again.close()


@pytest.mark.parametrize("wrong", ["gap", "repeat", "head", "sequence"])
def test_facts_that_do_not_continue_the_record_are_refused_and_nothing_is_written(store, wrong):
    vault_id, facts = make_facts(4)
    store.record_collected(CHAIN, [make_header(1)], make_head(vault_id, 1, facts[:2]), facts[:2])
    head = make_head(vault_id, 2, facts)
    new = {"gap": facts[3:], "repeat": facts[1:]}.get(wrong, facts[2:])
    if wrong == "head":
        head = HeadRecord(vault_id, head.point, 4, bytes([9]) * 32, b"")
    if wrong == "sequence":
        head = HeadRecord(vault_id, head.point, 5, head.head, b"")
    with pytest.raises(Rejected) as caught:
        store.record_collected(CHAIN, [make_header(2)], head, new)
    assert caught.value.reason == "not_next"
    assert store.verify_all() == {"headers": 1, "heads": 1, "facts": 2}


def test_parts_of_a_long_way_are_kept_without_a_head_until_the_last_one_brings_it(store, tmp_path):
    vault_id, facts = make_facts(7)
    store.record_collected(CHAIN, [make_header(1)], make_head(vault_id, 1, facts[:2]), facts[:2])
    store.record_headers(CHAIN, [make_header(5)])
    store.record_part(vault_id, facts[2:4], [(4, b"state 4")])
    store.record_part(vault_id, facts[4:6])
    store.record_part(vault_id, ())
    store.close()
    store = Store(tmp_path / "node.db")
    assert store.get_cursor(vault_id).sequence == 6
    assert store.get_head(vault_id).sequence == 2
    assert store.get_head_covering(vault_id, 3) is None
    assert store.get_snapshot(vault_id, 6) == (4, b"state 4")
    assert store.verify_all() == {"headers": 2, "heads": 1, "facts": 6}
    store.record_collected(CHAIN, [], make_head(vault_id, 5, facts), facts[6:])
    assert store.get_head_covering(vault_id, 3).sequence == 7
    assert list(store.iterate_facts(vault_id)) == list(facts)
    assert store.verify_all() == {"headers": 2, "heads": 2, "facts": 7}
    store.close()


@pytest.mark.parametrize("new", [slice(3, 4), slice(1, 3), slice(0, 1)])
def test_a_part_that_does_not_continue_the_record_is_refused_and_nothing_is_written(store, new):
    vault_id, facts = make_facts(4)
    store.record_part(vault_id, facts[:2])
    with pytest.raises(Rejected) as caught:
        store.record_part(vault_id, facts[new])
    assert caught.value.reason == "not_next"
    assert store.verify_all() == {"headers": 0, "heads": 0, "facts": 2}


def test_a_part_is_written_whole_or_not_at_all(store):
    vault_id, facts = make_facts(4)
    store.record_part(vault_id, facts[:2])
    store._db.execute("CREATE TRIGGER no_snaps BEFORE INSERT ON snapshots BEGIN SELECT RAISE(ABORT, 'broken'); END")
    with pytest.raises(sqlite3.IntegrityError):
        store.record_part(vault_id, facts[2:], [(4, b"state")])
    assert store.verify_all() == {"headers": 0, "heads": 0, "facts": 2}


def test_a_failure_in_the_middle_leaves_neither_header_nor_head_nor_fact(store):
    vault_id, facts = make_facts(2)
    store._db.execute("CREATE TRIGGER no_heads BEFORE INSERT ON heads BEGIN SELECT RAISE(ABORT, 'broken'); END")
    with pytest.raises(sqlite3.IntegrityError):
        store.record_collected(CHAIN, [make_header(1)], make_head(vault_id, 1, facts), facts)
    assert store.verify_all() == {"headers": 0, "heads": 0, "facts": 0}


def test_a_head_without_new_facts_is_recorded_with_its_height(store):
    vault_id, facts = make_facts(1)
    store.record_collected(CHAIN, [make_header(1)], make_head(vault_id, 1, facts), facts)
    store.record_collected(CHAIN, [make_header(2)], make_head(vault_id, 2, facts), ())
    assert store.get_head(vault_id).point.height == 2
    assert store.get_head_at(vault_id, 1).point.height == 1
    assert [h.point.height for h in store.iterate_heads(vault_id)] == [1, 2]


def test_old_light_client_states_are_dropped_and_their_claims_kept(store, monkeypatch):
    monkeypatch.setattr("relayer.store.KEPT_TRUSTED", 3)
    for height in range(1, 11):
        store.record_headers(CHAIN, [make_header(height)])
    assert store.get_trusted_at(CHAIN, 7) is None
    assert store.get_trusted_at(CHAIN, 8) is not None
    assert [h.claim for h in store.iterate_headers(CHAIN)] == [b"claim %d" % i for i in range(1, 11)]
    assert store.verify_all()["headers"] == 10


@pytest.mark.parametrize("number", [0, 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1])
def test_every_u64_keeps_its_bits_and_its_order(number):
    assert decode_u64(encode_u64(number)) == number
    assert (encode_u64(number) < encode_u64(2**62)) == (number < 2**62)


def test_a_zero_anchor_cannot_be_written(store):
    with pytest.raises(sqlite3.IntegrityError):
        store._db.execute(
            "INSERT INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                bytes(32),
                encode_u64(1),
                encode_u64(1),
                b"",
                encode_u64(1),
                encode_u64(1),
                bytes(32),
                b"\1" * 32,
                b"\1" * 32,
                b"",
            ),
        )


# ---- states


def test_states_are_folded_at_any_sequence_and_rebuilt_from_snapshots(tmp_path):
    parameters = make_parameters([VAULT])
    store = Store(tmp_path / "node.db")
    states = VaultStates(store, parameters)
    vault_id, facts = make_facts(SNAPSHOT_EVERY + 40)
    state, snapshots = states.compute_after(vault_id, facts)
    assert [s for s, _ in snapshots] == [SNAPSHOT_EVERY]
    store.record_collected(CHAIN, [make_header(1)], make_head(vault_id, 1, facts), facts, snapshots)
    states.record(vault_id, state)
    total = sum(range(1, SNAPSHOT_EVERY + 41))
    assert states.get_newest(vault_id).free[ALICE, TOKEN] == total
    fresh = VaultStates(store, parameters)
    assert fresh.get_at(vault_id, 2).free[ALICE, TOKEN] == 3
    assert fresh.get_newest(vault_id) == state
    assert fresh.get_at(vault_id, SNAPSHOT_EVERY + 1).outbox_sequence == SNAPSHOT_EVERY + 1
    with pytest.raises(Rejected) as caught:
        fresh.get_at(vault_id, 5000)
    assert caught.value.reason == "not_recorded"
    store.close()


# ---- committee records


def make_packet(sequence=1, status="open", seen_at=START):
    vault_id = Outbox(VAULT).vault_id
    return PacketRecord(
        vault_id, sequence, bytes([sequence]) * 32, 0, START + 60, b"value", b"\7" * 32, 3, "test", status, seen_at
    )


def test_votes_documents_packets_and_signatures_come_back(store):
    vote = Vote(3, 1, b"\7" * 32, b"\1" * 20, b"s" * 65)
    store.record_open_packets([make_packet()], [vote])
    store.record_vote(vote)
    store.record_vote(
        Vote(3, 1, b"\x08" * 32, b"\1" * 20, b"t" * 65)
    )  # a second one of a slot does not replace the first
    assert store.get_votes(b"\7" * 32) == store.get_votes_of(3) == (vote,)
    assert store.get_packets("open") == (make_packet(),)
    packet = make_packet()
    store.record_signatures([(packet.vault_id, 1, packet.commitment, bytes([i]) * 20, bytes([i]) * 65) for i in (2, 1)])
    assert list(store.get_signatures(packet.vault_id, 1, packet.commitment)) == [b"\1" * 20, b"\2" * 20]
    store.record_packet_status(packet.vault_id, 1, packet.commitment, "done")
    assert store.get_packets("open") == ()
    assert store.get_packet(packet.vault_id, 1, packet.commitment).status == "done"
    store.record_document("plan", b"\7" * 32, b"{}", START, k=3)
    store.record_document("plan", b"\7" * 32, b"other", START, k=3)
    assert store.get_document(b"\7" * 32) == b"{}"
    assert store.get_documents("plan", 3) == [b"{}"]
    assert store.get_documents("plan", 4) == []


def test_a_transaction_needs_its_intent_first(store):
    packet = make_packet()
    signed = SignedTx(CHAIN, packet.vault_id, 1, "0xabc", 2**63, 2**90, 1, "0xid", b"raw")
    with pytest.raises(sqlite3.IntegrityError):
        store.record_transaction(signed, packet.commitment, START)
    store.record_intent(packet.vault_id, 1, packet.commitment, START)
    assert store.is_intended(packet.vault_id, 1, packet.commitment)
    row = store.record_transaction(signed, packet.commitment, START)
    (record,) = store.get_transactions(packet=packet)
    assert (record.signed, record.sent_at, record.outcome) == (signed, None, "unknown")
    store.record_sent(row, START + 1)
    store.record_sent(row, START + 2)
    store.record_outcome(row, "included")
    assert store.get_transactions(chain=CHAIN)[0].sent_at == START + 1
    assert store.get_transactions(chain=CHAIN, open_only=True) == ()


def test_a_certificate_comes_back_signature_by_signature(store):
    from messages.bodies import Unpause, make_inbox_packet
    from messages.packet import compute_commitment

    vault_id = Outbox(VAULT).vault_id
    inbox = make_inbox_packet(vault_id, 1, START + 60, Unpause())
    store.record_certificate(Certificate(inbox, vault_id, 0, (b"a" * 65, b"b" * 65)), START)
    record = PacketRecord(vault_id, 1, compute_commitment(inbox), 0, 0, b"", b"\1" * 32, 0, "", "open", START)
    assert store.get_certificate_signatures(record) == (START, (b"a" * 65, b"b" * 65))
    assert store.get_certificate_signatures(make_packet(2)) is None


# ---- incidents


def test_a_halt_outlives_a_restart_and_needs_two_different_people(store, tmp_path):
    halt = store.record_halt("chain:x", "two_headers", "why", START)
    assert store.record_halt("chain:x", "two_headers", "why again", START) == halt
    store.close()
    again = Store(tmp_path / "node.db")
    assert again.is_halted("chain:x")
    assert not again.is_halted("chain:y")
    assert not again.record_halt_clearance(halt, "ann", "", START)
    assert not again.record_halt_clearance(halt, "ANN ", "", START)
    assert again.is_halted("chain:x")
    assert again.record_halt_clearance(halt, "bob", "", START)
    assert not again.is_halted("chain:x")
    for number, person, reason in ((99, "bob", "no_halt"), (halt, "  ", "no_person")):
        with pytest.raises(Rejected) as caught:
            again.record_halt_clearance(number, person, "", START)
        assert caught.value.reason == reason
    again.record_halt("node", "conservation", "", START)
    assert again.is_halted("chain:y")
    again.close()


def test_a_thousand_equal_blames_are_one_row_with_a_count(store):
    store.record_blames([Blame(CHAIN, "one", "forged", "x" * 10_000)] * 1000, START)
    ((blame, count, last_at),) = store.get_blames()
    assert (count, last_at, len(blame.detail)) == (1000, START, 500)


def test_prices_are_kept_once_per_slot_and_found_by_time_and_feed(store):
    source, other = b"\1" * 32, b"\2" * 32
    assert store.record_price("report", source, other, 0, 120, b"first") == b"first"
    assert store.record_price("report", source, other, 0, 120, b"second") == b"first"
    store.record_price("report", source, source, 0, 180, b"third")
    assert store.get_prices("report", since=60) == [b"first", b"third"]
    assert store.get_prices("report", since=121) == [b"third"]
    assert store.get_prices("report", since=0, upto=130) == [b"first"]
    assert store.get_prices("report", feed=(source, source)) == [b"third"]
    assert store.get_prices("mark") == []


# ---- failures


def test_a_full_disk_ends_the_process_with_code_75_and_the_store_opens_again(tmp_path):
    store = Store(tmp_path / "node.db")
    vault_id, facts = make_facts(400)
    store.record_collected(CHAIN, [make_header(1)], make_head(vault_id, 1, facts[:2]), facts[:2])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreFailure) as caught:
        store.record_collected(CHAIN, [make_header(2)], make_head(vault_id, 2, facts), facts[2:])
    assert caught.value.exit_code == EXIT_STORE == 75
    store.close()
    again = Store(tmp_path / "node.db")
    assert again.verify_all() == {"headers": 1, "heads": 1, "facts": 2}
    again.close()


def test_a_failing_commit_is_an_unknown_end_and_not_a_known_failure(store):
    def write():
        with store._file.transaction() as db:
            db.execute("PRAGMA defer_foreign_keys = ON")
            db.execute("INSERT INTO halt_clearances VALUES (77, 'ann', '', 0)")  # no such halt: only COMMIT notices

    with pytest.raises(StoreFailure) as caught:
        write()
    assert "unknown" in str(caught.value)


def test_a_store_failure_is_no_error_that_a_task_may_handle():
    from messages.errors import RelayerError

    assert not issubclass(StoreFailure, RelayerError)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_flipped_byte_of_recorded_evidence_is_seen_before_anything_is_signed(tmp_path_factory, seed):
    folder = _get_sample(tmp_path_factory)
    dice = random.Random(seed)
    path = folder / f"flip{seed}.db"
    data = bytearray((folder / "sample.db").read_bytes())
    # Only bytes of recorded evidence: SQLite leaves free space and unused header fields unchecked, and nothing reads them.
    spans = [(data.find(needle), len(needle)) for needle in _needles(folder)]
    start, length = dice.choice([s for s in spans if s[0] >= 0])
    at = start + dice.randrange(length)
    data[at] ^= 1 << dice.randrange(8)
    path.write_bytes(data)
    path.chmod(0o600)
    try:
        with pytest.raises(Rejected) as caught:
            _read_everything(path)
        assert caught.value.reason in ("chain_broken", "corrupt", "malformed")
    finally:
        path.unlink()


def _read_everything(path):
    store = Store(path)
    try:
        store.verify_all()
        store.get_trusted(CHAIN)
        store.get_head(Outbox(VAULT).vault_id)
        store.get_header_claim(CHAIN, 5)
    finally:
        store.close()


_sample: list[Path] = []


def _get_sample(factory):
    if not _sample:
        folder = factory.mktemp("flips")
        store = Store(folder / "sample.db")
        vault_id, facts = make_facts(20)
        store.record_collected(
            CHAIN, [make_header(1, "bootstrap"), make_header(5)], make_head(vault_id, 5, facts), facts
        )
        store.close()
        _sample.append(folder)
    return _sample[0]


def _needles(folder):
    from messages.outbox import encode_fact

    _, facts = make_facts(20)
    return [encode_fact(f) for f in facts] + [b"claim 5", b"trusted 5", b"proof 5", facts[-1].head]


def test_a_missing_end_of_the_facts_is_noticed(tmp_path):
    store = Store(tmp_path / "node.db")
    vault_id, facts = make_facts(5)
    store.record_collected(CHAIN, [make_header(1)], make_head(vault_id, 1, facts), facts)
    store._db.execute("DELETE FROM facts WHERE sequence = ?", (encode_u64(5),))
    store.close()
    with pytest.raises(Rejected) as caught:
        Store(tmp_path / "node.db")
    assert caught.value.reason == "chain_broken"


def test_readers_see_the_store_while_the_node_writes_and_can_change_nothing(store):
    vault_id, facts = make_facts(2)
    store.record_collected(CHAIN, [make_header(1)], make_head(vault_id, 1, facts), facts)
    reader = open_reader(store.path)
    assert reader.execute("SELECT count(*) FROM facts").fetchone()[0] == 2
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM facts")
    reader.close()
    with pytest.raises(Rejected) as caught:
        open_reader(store.path.with_name("none.db"))
    assert caught.value.reason == "no_store"


# ---- size


@pytest.mark.parametrize("batches", [4, pytest.param(25, marks=[pytest.mark.slow, IN_SOAK])])
def test_a_hundred_thousand_facts_are_recorded_in_flat_memory_and_only_the_tail_is_folded_again(tmp_path, batches):
    """16,000 facts in the quick run, 100,000 in the long one; the same bound of memory for both."""
    code = f"""
from pathlib import Path
from bench.figures import get_peak_memory_mb
from tests.store.test_store import *
from relayer.rules.ledger import get_vault_id
from messages.outbox import get_start_cursor, Cursor
from tests.builders import make_facts as fold_facts
from messages.bodies import make_outbox_packet
store = Store(Path({str(tmp_path / "node.db")!r}))
states = VaultStates(store, make_parameters([VAULT]))
vault_id = get_vault_id(VAULT)
cursor = get_start_cursor(vault_id)
for batch in range({batches}):
    packets = [(make_outbox_packet(vault_id, cursor.sequence + i + 1, START + batch, Deposited(ALICE, TOKEN, 1)), None) for i in range(4000)]
    facts = fold_facts(vault_id, packets, cursor=cursor)
    state, snapshots = states.compute_after(vault_id, facts)
    store.record_collected(CHAIN, [make_header(batch + 1)], make_head(vault_id, batch + 1, facts), facts, snapshots)
    states.record(vault_id, state)
    cursor = Cursor(vault_id, facts[-1].sequence, facts[-1].head)
store.close()
print(get_peak_memory_mb())
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 300  # MB, the interpreter and its libraries included
    store = Store(tmp_path / "node.db")
    states = VaultStates(store, make_parameters([VAULT]))
    vault_id = Outbox(VAULT).vault_id
    folded: list[int] = []
    inner = store.iterate_facts
    store.iterate_facts = lambda v, after=0, upto=None: (folded.append(f.sequence) or f for f in inner(v, after, upto))
    assert states.get_newest(vault_id).free[ALICE, TOKEN] == 4000 * batches
    assert len(folded) < SNAPSHOT_EVERY
    store.close()


# ---- together


def test_what_is_recorded_together_is_one_transaction(store):
    statements = []
    store._db.set_trace_callback(statements.append)
    with store.together():
        store.record_setting("a", b"1")
        store.record_settings({"b": b"2", "c": b"3"})
        with store.together():
            store.record_setting("d", b"4")
    store._db.set_trace_callback(None)
    assert [s for s in statements if s.startswith(("BEGIN", "COMMIT"))] == ["BEGIN IMMEDIATE", "COMMIT"]
    assert [store.get_setting(key) for key in "abcd"] == [b"1", b"2", b"3", b"4"]


def test_of_what_is_recorded_together_nothing_stays_if_the_end_is_not_reached(store):
    store.record_setting("a", b"0")

    def fail():
        with store.together():
            store.record_setting("a", b"1")
            store.record_setting("b", b"2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (store.get_setting("a"), store.get_setting("b")) == (b"0", None)
    store.record_setting("b", b"3")
    assert store.get_setting("b") == b"3"
