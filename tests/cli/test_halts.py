"""`relayer halts` and `relayer evidence`: two different people, one writer, and proofs that stand alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chains.solana.codec import encode_observation
from chains.solana.observations import compute_observation_digest
from chains.solana.types import Observation, SignedObservation
from messages.digests import compute_committee_id, compute_vote_digest, sign_digest
from messages.documents import Vote, encode_document
from relayer.rules.quorum import compute_observation_equivocation, compute_vote_equivocation
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


# ---- two states of a vault that operators tell of


def make_two_states(vault_id=b"\x21" * 32, heads=(b"\x01" * 32, b"\x02" * 32), sequences=(5, 5), key=OPERATOR_KEYS[2]):
    statements = []
    for sequence, head in zip(sequences, heads, strict=True):
        observation = Observation(vault_id, 100, 1_800_000_000, sequence, head)
        signature = sign_digest(key, compute_observation_digest(observation))
        statements.append(encode_observation(SignedObservation(observation, OPERATORS[2], signature)))
    return compute_observation_equivocation(OPERATORS[2], vault_id, *statements)


def test_two_states_under_one_number_are_exported_and_verified_without_the_chain(shell, tmp_path):
    put(shell, make_two_states())
    path = tmp_path / "evidence.json"
    shell.json("evidence", "export", path)
    found = shell.json("evidence", "verify", path, "-c", "relayer.toml")
    assert (found["verified"], found["kind"], found["operator"]) == (True, "observation", "0x" + OPERATORS[2].hex())
    assert "two states of a vault under one number" in shell.text("evidence", "list", code=1)
    operators = {o["operator"]: o["equivocations"] for o in shell.json("operators")["operators"]}
    assert operators["0x" + OPERATORS[2].hex()] == 1


@pytest.mark.parametrize(
    "equivocation",
    [
        make_two_states(heads=(b"\x01" * 32, b"\x01" * 32)),
        make_two_states(sequences=(5, 6)),
        make_two_states(key=OPERATOR_KEYS[1]),
        replace(make_two_states(), operator=OPERATORS[1]),
        replace(make_two_states(), second=make_two_states(vault_id=b"\x22" * 32).second),
        replace(make_two_states(), first=b"{}"),
    ],
)
def test_states_that_can_both_be_true_prove_nothing(shell, tmp_path, equivocation):
    put(shell, equivocation)
    assert shell("evidence", "export", tmp_path / "evidence.json").exit_code == 1
    assert not (tmp_path / "evidence.json").exists()
