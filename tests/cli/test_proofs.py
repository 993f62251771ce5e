"""`prove`, `verify`, `archive`, `replay` on real stores: everything is found again from proofs alone, and every flipped byte too."""

from __future__ import annotations

import io
import json
import random
import socket
import sqlite3
from dataclasses import replace

import pytest

from messages.canonical import decode_canonical, encode_canonical
from messages.documents import to_object
from messages.errors import Rejected
from messages.hashing import keccak256
from relayer.archive import CHECK_BYTES, ArchivedPlan, ArchiveEnd, read_archive, write_archive
from relayer.commands import proofs
from relayer.database import encode_u64
from relayer.store import Store


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


def prove(shell, subject="1001:8"):
    result = shell("prove", subject)
    assert result.exit_code == 0, result.output
    path = shell.folder / "fact.json"
    path.write_bytes(result.stdout_bytes)
    return path


# ---- prove and verify


def test_every_fact_on_record_can_be_proven_and_verified(shell):
    facts = shell.json("packets")["outbox"]
    assert len(facts) > 10
    for fact in facts:
        path = prove(shell, f"{fact['chain']}:{fact['sequence']}")
        data = shell.json("verify", path)
        assert data["verified"]
        assert data["fact"]["head"] == fact["head"]
        assert data["fact"]["kind"] == fact["kind"]


def test_a_fact_can_be_named_by_the_beginning_of_its_id(shell):
    fact = shell.json("packets")["outbox"][-1]
    data = shell.json("verify", prove(shell, fact["head"][:16]))
    assert data["fact"]["sequence"] == fact["sequence"]


def test_a_proof_is_the_same_bytes_each_time(shell):
    assert shell("prove", "1000:3").stdout_bytes == shell("prove", "1000:3").stdout_bytes


def test_verify_for_people_says_what_was_proven_and_relative_to_what(shell):
    path = prove(shell)
    text = shell.text("verify", path)
    assert text.startswith("VERIFIED packet 8 of eip155:1001: WithdrawalRequested")
    assert "RELATIVE TO THE FILE'S OWN ANCHOR" in text
    assert "that of your configuration" in shell.text("verify", path, "--config", "relayer.toml")


def test_a_changed_file_is_rejected_with_a_reason(shell):
    path = prove(shell)
    obj = json.loads(path.read_bytes())
    obj["packets"][0]["packet"] = obj["packets"][0]["packet"][:-2] + "ff"
    path.write_bytes(encode_canonical(obj))
    result = shell("verify", path)
    assert result.exit_code == 1
    assert result.stdout.startswith("REJECTED [")
    assert not shell.json("verify", path, code=1)["verified"]


def test_wrong_usage_of_verify_is_told_apart_from_a_rejection(shell):
    path = prove(shell)
    assert shell.json("verify", "nowhere.json", code=2)["error"] == "usage"
    assert shell.json("verify", path, "--checkpoint", "0x12", code=2)["error"] == "usage"
    assert shell("verify").exit_code == 2


@pytest.mark.parametrize(
    "subject", ["1000:0", "1000:999", "7:1", "0xffffffff", "abc", "1000:-1", "1000:99999999999999999999"]
)
def test_what_is_no_fact_is_not_proven(shell, subject):
    assert shell.json("prove", subject, code=1)["error"] in ("unknown_fact", "unknown_vault")


def test_a_node_that_joined_late_says_who_can_prove_an_old_fact(shell, monkeypatch):
    covering = Store.get_head_covering
    far = {}

    def get_covering(store, vault_id, sequence):
        record = covering(store, vault_id, sequence)
        return replace(record, sequence=sequence + far["by"]) if far["by"] else None

    monkeypatch.setattr(Store, "get_head_covering", get_covering)
    for far["by"], words in ((20_000, "ask a node that was there"), (0, "once it has caught up")):
        result = shell("prove", "1000:1")
        assert result.exit_code == 1
        assert words in result.output


# ---- replay of the store


def test_replay_gives_the_recorded_digests(shell):
    data = shell.json("replay")
    assert data["is_same"]
    assert data["differences"] == data["uncovered"] == []
    assert data["acknowledged"] == 3
    assert [c["facts"] for c in data["chains"]] == [
        c.state.outbox_sequence for c in sorted(shell.world.chains, key=lambda c: c.vault_id)
    ]
    plans = {p["plan_digest"] for p in shell.json("packets")["inbox"]}
    assert {p["plan_digest"] for p in data["plans"]} == plans
    assert all(p["votes"] >= 3 and p["is_same"] for p in data["plans"])
    assert "SAME: everything came out" in shell.text("replay")


def test_replay_of_one_cut(shell):
    cut = shell.json("replay")["plans"][0]["cut_digest"]
    data = shell.json("replay", "--cut", cut[:14])
    assert [p["cut_digest"] for p in data["plans"]] == [cut]
    assert "no certified proposal" in shell.json("replay", "--cut", "0xffffffff", code=1)["differences"][0]
    assert shell.json("replay", "--cut", "xyz", code=2)["error"] == "usage"


TABLES = {
    "headers": ("claim",),
    "heads": ("proof", "head"),
    "facts": ("record", "head"),
    "documents": ("body",),
    "packets": ("value", "plan_digest"),
}


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, columns in TABLES.items() for c in columns])
def test_a_flipped_byte_in_the_store_is_found_and_named(shell, table, column):
    original = shell.store.read_bytes()
    chooser = random.Random(f"{table}.{column}")
    is_keyed = table == "packets"
    key_columns = "vault_id, sequence" if is_keyed else "rowid"
    where = "vault_id = ? AND sequence = ?" if is_keyed else "rowid = ?"
    with sqlite3.connect(shell.store) as db:
        keys = db.execute(f"SELECT {key_columns} FROM {table}").fetchall()
    for _ in range(3):
        shell.store.write_bytes(original)
        with sqlite3.connect(shell.store) as db:
            key = chooser.choice(keys)
            (value,) = db.execute(f"SELECT {column} FROM {table} WHERE {where}", key).fetchone()
            at = chooser.randrange(len(value))
            changed = value[:at] + bytes([value[at] ^ 1 << chooser.randrange(8)]) + value[at + 1 :]
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (changed, *key))
        result = shell("replay", "--json")
        data = json.loads(result.stdout)
        assert result.exit_code in (1, 4), (table, column, at)
        assert data.get("differences") or data["detail"], (table, column, at)


def test_a_vote_that_was_changed_is_found(shell):
    with sqlite3.connect(shell.store) as db:
        db.execute("UPDATE votes SET signature = zeroblob(65)")
    assert "bad_signature" in shell.json("replay", code=1)["differences"][0]


def test_an_acknowledged_packet_without_its_proposal_is_said_to_be_uncovered(shell):
    with sqlite3.connect(shell.store) as db:
        db.execute("DELETE FROM documents WHERE kind = 'proposal' AND k = ?", (encode_u64(0),))
    data = shell.json("replay")
    assert len(data["uncovered"]) == 3
    assert "0 of 3 acknowledged" in shell.text("replay")


# ---- archive files


@pytest.fixture
def archive(shell):
    assert shell.json("archive", "export", "run.jsonl")["lines"] > 100
    return shell.folder / "run.jsonl"


def test_an_archive_alone_gives_the_same_digests(shell, archive):
    with_store = shell.json("replay")
    shell.store.unlink()
    data = shell.json("replay", "--archive", archive)
    assert data["is_same"]
    assert data["anchor"] == "file"
    assert data["plans"] == with_store["plans"]
    assert data["chains"] == with_store["chains"]
    assert shell.json("replay", "--archive", archive, "-c", "relayer.toml")["anchor"] == "config"
    assert "Relative to the archive's own anchors" in shell.text("replay", "--archive", archive)


def test_an_archive_is_never_overwritten_nor_left_half_written(shell, archive):
    assert shell.json("archive", "export", archive, code=2)["error"] == "usage"
    assert shell.json("archive", "export", "no/such/folder.jsonl", code=2)["error"] == "usage"
    assert not list(shell.folder.glob("*.partial"))


def test_each_line_is_canonical_and_says_what_it_is(archive):
    for line in archive.read_bytes().splitlines():
        assert encode_canonical(decode_canonical(line)) == line
    kinds = {type(record).__name__ for _, record in read_archive(io.BytesIO(archive.read_bytes()))}
    assert kinds == {
        "ArchiveStart",
        "ArchivedHeader",
        "ArchivedPacket",
        "ArchivedHead",
        "ArchivedParameters",
        "ArchivedPlan",
        "ArchiveEnd",
    }


def test_a_flipped_byte_anywhere_in_an_archive_is_found_at_its_line(shell, archive):
    data = archive.read_bytes()
    chooser = random.Random(5)
    for at in chooser.sample(range(len(data)), 60):
        changed = data[:at] + bytes([data[at] ^ 1 << chooser.randrange(8)]) + data[at + 1 :]
        line = data[:at].count(b"\n") + 1
        with pytest.raises(Rejected) as error:
            list(read_archive(io.BytesIO(changed)))
        # a flipped line end joins two lines or cuts one: the damage is told at the line where it shows
        assert error.value.source in (f"line {line}", f"line {line + 1}")
    archive.write_bytes(data[: len(data) // 2] + b"\x00" + data[len(data) // 2 + 1 :])
    answer = shell.json("replay", "--archive", archive, code=1)
    assert "damaged_line" in answer["differences"][0]
    assert shell.text("replay", "--archive", archive, code=1).endswith("DIFFERS\n")


def test_a_missing_repeated_or_cut_off_line_is_found(archive):
    lines = archive.read_bytes().splitlines(keepends=True)
    for changed in (
        lines[:-1],
        lines[:5] + lines[6:],
        lines[:5] + lines[4:],
        lines[1:],
        [*lines, lines[-1]],
        [],
        lines[::-1],
    ):
        with pytest.raises(Rejected):
            list(read_archive(io.BytesIO(b"".join(changed))))


def rewrite(archive, change):
    """An archive with changed records whose line checks are right again: what a liar would hand over."""
    records = []
    for _, record in read_archive(io.BytesIO(archive.read_bytes())):
        if not isinstance(record, ArchiveEnd):
            records += change(record)
    out = io.BytesIO()
    write_archive(records, out)
    archive.write_bytes(out.getvalue())


def test_a_forged_archive_with_right_checks_is_found_by_its_proofs(shell, archive):
    original = archive.read_bytes()
    chooser = random.Random(9)
    lines = original.splitlines()
    for n in chooser.sample(range(1, len(lines) - 1), 25):
        record = json.loads(lines[n])["record"]
        names = [k for k, v in record.items() if isinstance(v, str) and v.startswith("0x") and len(v) > 2]
        if not names:
            continue
        name = chooser.choice(names)
        value = bytearray.fromhex(record[name][2:])
        value[chooser.randrange(len(value))] ^= 1 << chooser.randrange(8)
        record[name] = "0x" + value.hex()
        check, out = bytes(CHECK_BYTES), []
        for i, line in enumerate(lines):
            body = record if i == n else json.loads(line)["record"]
            check = keccak256(check + (i + 1).to_bytes(8, "big") + encode_canonical(body))[:CHECK_BYTES]
            out.append(encode_canonical({"check": "0x" + check.hex(), "line": i + 1, "record": body}) + b"\n")
        archive.write_bytes(b"".join(out))
        answer = shell.json("replay", "--archive", archive, code=1)
        assert answer["differences"], (n, record["schema"], name)


def test_a_forged_proposal_is_found_by_votes_or_by_the_rules(shell, archive):
    from dataclasses import replace

    original = archive.read_bytes()
    changes = {
        "another plan": lambda p: replace(p, proposal=replace(p.proposal, plan_digest=b"\x11" * 32)),
        "another k": lambda p: replace(p, proposal=replace(p.proposal, k=p.proposal.k + 1)),
        "later prices": lambda p: replace(
            p, proposal=replace(p.proposal, market=replace(p.proposal.market, now=p.proposal.market.now + 1))
        ),
        "fewer votes": lambda p: replace(p, votes=p.votes[:2]),
        "another ledger": lambda p: replace(p, ledger_digest=b"\x22" * 32),
        "an older cut": lambda p: replace(
            p,
            proposal=replace(
                p.proposal,
                cut=replace(
                    p.proposal.cut, entries=(replace(p.proposal.cut.entries[0], time=1), *p.proposal.cut.entries[1:])
                ),
            ),
        ),
    }
    for name, change in changes.items():
        archive.write_bytes(original)
        rewrite(archive, lambda r, change=change: [change(r) if isinstance(r, ArchivedPlan) else r])
        assert shell.json("replay", "--archive", archive, code=1)["differences"], name


def test_parameters_of_somebody_else_are_found_by_the_own_configuration(shell, archive, monkeypatch):
    from dataclasses import replace

    from relayer.commands import view

    loaded = view.load(None)
    monkeypatch.setattr(view, "load", lambda _: replace(loaded, parameters=replace(loaded.parameters, version=2)))
    answer = shell.json("replay", "--archive", archive, "-c", "relayer.toml", code=1)
    assert "not those that the checker believes" in answer["differences"][0]


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"{}\n", b"[" * 50_000 + b"\n", b"\xff" * 100, b'{"check":"0x00","line":1,"record":{}}\n']
)
def test_hostile_archives_are_refused_with_words(shell, data):
    path = shell.folder / "hostile.jsonl"
    path.write_bytes(data)
    assert shell.json("replay", "--archive", path, code=1)["differences"]


def test_an_endless_line_is_not_read_to_its_end(shell, monkeypatch):
    monkeypatch.setattr("relayer.archive.MAX_LINE_BYTES", 10_000)
    path = shell.folder / "long.jsonl"
    path.write_bytes(b" " * 1_000_000)
    assert "size" in shell.json("replay", "--archive", path, code=1)["differences"][0]


def test_replay_without_anything_is_wrong_usage(shell):
    assert shell.json("replay", "--archive", "nowhere.jsonl", code=2)["error"] == "usage"


def test_records_have_one_object_form(archive):
    for _, record in read_archive(io.BytesIO(archive.read_bytes())):
        assert encode_canonical(to_object(record))
    assert proofs.make_judge
