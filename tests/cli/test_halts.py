"""`relayer halts` and `relayer evidence`: two different people, one writer, and proofs that stand alone."""

from __future__ import annotations

import json

import pytest

from messages.digests import compute_committee_id, compute_vote_digest, sign_digest
from messages.documents import Vote, encode_document
from relayer.rules.quorum import compute_vote_equivocation
from relayer.rules.statements import Equivocation
from relayer.store import Store
from tests.builders import OPERATOR_KEYS, OPERATORS, make_key


def clear(shell, person, number=1, note="a look at the logs"):
    return shell("halts", "clear", number, "--person", person, "--note", note, "--json")


def test_a_halt_ends_with_two_different_people(shell):
    listed = shell.json("halts", "list", code=1)
    assert [h["subject"] for h in listed["halts"]] == ["operator:test"]
    first = clear(shell, "Ada")
    assert first.exit_code == 0
    assert json.loads(first.stdout)["is_cleared"] is False
    again = clear(shell, " aDa ")
    assert again.exit_code == 1
    assert json.loads(again.stdout)["error"] == "same_person"
    assert shell.json("halts", "list", code=1)["active"] == 1
    assert json.loads(clear(shell, "Grace").stdout)["is_cleared"] is True
    assert shell.json("halts", "list")["halts"] == []
    assert shell.json("halts", "list", "--all")["halts"][0]["cleared_by"] == ["ada", "grace"]
    assert json.loads(clear(shell, "Edsger").stdout)["error"] == "already_cleared"


def test_a_halt_is_cleared_only_by_name_with_a_reason_and_by_its_number(shell):
    assert json.loads(clear(shell, " ").stdout)["error"] == "no_person"
    assert json.loads(clear(shell, "Ada", note=" ").stdout)["error"] == "no_note"
    assert json.loads(clear(shell, "Ada", 77).stdout)["error"] == "no_halt"
    assert shell.json("halts", "list", code=1)["halts"][0]["cleared_by"] == []


def test_a_running_node_is_not_written_to(shell):
    store = Store(shell.store)
    result = clear(shell, "Ada")
    store.close()
    assert result.exit_code == 75
    assert json.loads(result.stdout)["error"] == "in_use"


def test_clearing_makes_no_store(shell):
    shell.store.unlink()
    result = clear(shell, "Ada")
    assert result.exit_code == 4
    assert not shell.store.exists()


# ---- evidence


def make_equivocation(shell, key=OPERATOR_KEYS[2]) -> Equivocation:
    identifier = compute_committee_id(sorted(c.vault_id for c in shell.world.chains))
    operator = OPERATORS[2]
    votes = [
        Vote(7, 0, plan, operator, sign_digest(key, compute_vote_digest(identifier, 7, 0, plan)))
        for plan in (b"\x01" * 32, b"\x02" * 32)
    ]
    return compute_vote_equivocation(*votes)


def put(shell, equivocation):
    store = Store(shell.store)
    store.record_evidence(b"\x33" * 32, equivocation.operator, equivocation.kind, encode_document(equivocation), 1)
    store.close()


@pytest.fixture
def exported(shell, tmp_path):
    put(shell, make_equivocation(shell))
    path = tmp_path / "evidence.json"
    shell.json("evidence", "export", path)
    return path


def test_evidence_is_exported_and_verified_alone_and_by_own_records(shell, exported):
    assert shell.json("evidence", "list", code=1)["evidence"][0]["operator"] == "0x" + OPERATORS[2].hex()
    alone = shell.json("evidence", "verify", exported)
    assert alone["verified"] is True
    assert alone["set_is_known"] is False
    beside = shell.json("evidence", "verify", exported, "-c", "relayer.toml")
    assert beside["set_is_known"] is True
    assert shell("evidence", "export", exported).exit_code == 1  # nothing is overwritten


@pytest.mark.parametrize("place", ["operator", "first", "epoch", "id", "schema"])
def test_changed_evidence_proves_nothing(shell, exported, place):
    obj = json.loads(exported.read_text())
    if place == "operator":
        obj["equivocation"]["operator"] = "0x" + OPERATORS[0].hex()
    if place == "first":
        obj["equivocation"]["first"] = obj["equivocation"]["second"]
    if place == "epoch":
        obj["committee"]["epoch"] = 4
    if place == "id":
        obj["committee"]["id"] = "0x" + "11" * 32
    if place == "schema":
        obj["schema"] = "optsettle/evidence-file/2"
    exported.write_text(json.dumps(obj, sort_keys=True, separators=(",", ":")))
    result = shell("evidence", "verify", exported, "-c", "relayer.toml")
    assert result.exit_code == 1, result.output


def test_a_record_that_proves_nothing_is_not_exported(shell, tmp_path):
    put(shell, make_equivocation(shell, make_key("somebody else")))
    result = shell("evidence", "export", tmp_path / "evidence.json")
    assert result.exit_code == 1
    assert not (tmp_path / "evidence.json").exists()


def test_there_is_no_evidence_where_nobody_lied(shell, tmp_path):
    assert shell.json("evidence", "list")["evidence"] == []
    assert shell("evidence", "export", tmp_path / "evidence.json").exit_code == 1
