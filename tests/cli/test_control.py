"""`relayer operators rotate`, `caps set`, `unpause`, `parameters`: what may be decided, who signs it, and what no node takes."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from messages.bodies import RotateOperators, SetCaps, Unpause, encode_body
from messages.documents import Amount, ControlParameters, TierParameters, compute_digest
from messages.errors import Rejected
from relayer.cli import app
from relayer.commands.control import get_standing, make_next, make_unpause, read_amount, read_time
from relayer.config import load_config, load_parameters
from relayer.keys import Journal
from relayer.rules.vault_state import get_initial_state, get_vault_id
from relayer.service import verify_configured_parameters
from relayer.toml_writer import encode_parameters
from tests.builders import DAY, OPERATORS, TOKEN, make_account, make_parameters, make_vault
from tests.cli.operator_files import write_folder

NOW = int(time.time())
PAST = 1_700_000_000


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert "Traceback" not in result.output, result.output
    return result


def get_json(*arguments, code=0):
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def make_two_vaults():
    return make_parameters([make_vault(0), make_vault(1)], effective=PAST)


@pytest.fixture
def homes(tmp_path):
    return [write_folder(tmp_path / f"op{i}", i, parameters=make_two_vaults()) for i in range(4)]


def write_set(path, operators=OPERATORS[:3], threshold=3):
    names = ", ".join(f'"0x{o.hex()}"' for o in operators)
    path.write_text(f"operators = [{names}]\nthreshold = {threshold}\n")
    return path


def rotate(tmp_path, config, *, at=NOW + 5 * DAY, since=NOW + 3600, out="next.toml", **changes):
    target = write_set(tmp_path / "set.toml", **changes)
    return run(
        "operators", "rotate", "--to", target, "--at", at, "--from", since, "--out", tmp_path / out, "-c", config, "--json"
    )  # fmt: skip


# ---- making


def test_a_rotation_names_every_vault_with_one_instant(tmp_path, homes):
    result = rotate(tmp_path, homes[0])
    assert result.exit_code == 0, result.output
    made = load_parameters(tmp_path / "next.toml")
    assert made.version == 2
    assert json.loads(result.stdout)["digest"] == "0x" + compute_digest(made).hex()
    assert sorted(c.vault_id for c in made.controls) == sorted(get_vault_id(v) for v in made.vaults)
    assert len({c.value for c in made.controls}) == 1
    assert json.loads(result.stdout)["changed"] == ["version", "effective", "controls"]
    assert rotate(tmp_path, homes[0]).exit_code == 1  # nothing is overwritten


@pytest.mark.parametrize(
    ("changes", "reason", "code"),
    [
        ({"at": NOW + DAY}, "too_soon", 1),
        ({"since": NOW - 60}, "too_early", 1),
        ({"threshold": 2}, "bad_operators", 1),
        ({"threshold": 4}, "bad_operators", 1),
        ({"operators": (OPERATORS[0], OPERATORS[0], OPERATORS[1])}, "bad_operators", 1),
        ({"operators": (bytes(20), OPERATORS[0], OPERATORS[1])}, "bad_operators", 1),
        ({"at": "tomorrow"}, "usage", 2),
        ({"at": "2030-01-01T00:00"}, "usage", 2),
    ],
)
def test_a_rotation_that_no_vault_would_take_is_not_written(tmp_path, homes, changes, reason, code):
    result = rotate(tmp_path, homes[0], **changes)
    assert result.exit_code == code, result.output
    assert json.loads(result.stdout)["error"] == reason
    assert not (tmp_path / "next.toml").exists()


def test_caps_are_set_in_units_of_the_asset(tmp_path, homes):
    words = ["caps", "set", "--chain", "1000", "--asset", "USDC", "--from", NOW + 3600, "-c", homes[0]]
    amounts = ["--packet", "12.5", "--hour", "100", "--day", "1_000"]
    get_json(*words, *amounts, "--out", tmp_path / "next.toml")
    (control,) = load_parameters(tmp_path / "next.toml").controls
    assert control == ControlParameters(
        get_vault_id(make_vault(0)), encode_body(SetCaps(TOKEN, 12_500_000, 10**8, 10**9))
    )
    for wrong, code in (
        (["--packet", "200"], 1),
        (["--packet", "0"], 1),
        (["--packet", "1.0000001"], 2),
        (["--asset", "DAI"], 1),
    ):
        assert run(*words, *amounts, *wrong, "--out", tmp_path / "other.toml").exit_code == code
        assert not (tmp_path / "other.toml").exists()


def test_version_one_is_used_by_its_digest_and_another_under_that_number_is_not(tmp_path, homes):
    file = homes[0].parent / "parameters.toml"
    found = json.loads(run("parameters", "verify", file, "-c", homes[0], "--json").stdout)
    assert (found["is_genesis"], found["is_enough"], found["signed_by"]) == (True, True, [])
    other = tmp_path / "other.toml"
    other.write_text(encode_parameters(replace(load_parameters(file), heartbeat_s=5)))
    result = run("parameters", "verify", other, "-c", homes[0])
    assert result.exit_code == 1
    assert "NOT enough" in result.stdout


def test_only_a_paused_vault_is_unpaused_and_an_old_unpause_leaves_the_next_version(tmp_path, homes):
    result = run("unpause", "--from", NOW + 3600, "--out", tmp_path / "next.toml", "-c", homes[0])
    assert result.exit_code == 1
    assert "not_paused" in result.stderr
    parameters = make_two_vaults()
    states = {get_vault_id(v): get_initial_state(v) for v in parameters.vaults}
    one = get_vault_id(make_vault(0))
    paused = {**states, one: replace(states[one], paused=True)}
    made = make_unpause(get_standing(parameters, paused, NOW), None, NOW + 60, NOW)
    assert made.controls == (ControlParameters(one, encode_body(Unpause())),)
    assert make_next(get_standing(made, paused, NOW + 61), [], NOW + 120, NOW + 61).controls == made.controls
    assert make_next(get_standing(made, states, NOW + 61), [], NOW + 120, NOW + 61).controls == ()


def test_new_caps_take_the_place_of_those_that_wait(homes):
    parameters = make_two_vaults()
    one, two = (get_vault_id(v) for v in parameters.vaults)
    standing = get_standing(parameters, {}, NOW)
    first = make_next(standing, [(one, SetCaps(TOKEN, 1, 2, 3)), (two, SetCaps(TOKEN, 1, 2, 3))], NOW + 60, NOW)
    standing = get_standing(first, {}, NOW + 61)
    second = make_next(standing, [(one, SetCaps(TOKEN, 4, 5, 6))], NOW + 120, NOW + 61)
    assert {(c.vault_id, c.value) for c in second.controls} == {
        (two, encode_body(SetCaps(TOKEN, 1, 2, 3))),
        (one, encode_body(SetCaps(TOKEN, 4, 5, 6))),
    }


# ---- signing


def sign(i, homes, file, digest, *more):
    return run("parameters", "sign", file, "--digest", digest, "-c", homes[i], "--json", *more)


@pytest.fixture
def made(tmp_path, homes):
    return tmp_path / "next.toml", json.loads(rotate(tmp_path, homes[0]).stdout)["digest"]


def test_a_quorum_signs_one_after_the_other_and_a_node_takes_it_at_its_instant(tmp_path, homes, made):
    file, digest = made
    assert get_json("parameters", "verify", file, "-c", homes[0], code=1)["signed_by"] == []
    for i in range(3):
        result = sign(i, homes, file, digest)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["is_enough"] is (i == 2)
    assert get_json("parameters", "verify", file, "-c", homes[3])["missing"] == ["0x" + OPERATORS[3].hex()]
    shown = get_json("parameters", "show", file, "-c", homes[0])
    assert len(shown["signed_by"]) == 3
    text = homes[3].read_text()
    head = f'next_parameters = "{file}"\nnext_parameter_signatures = "{file.with_name("next.signed.json")}"\n'
    homes[3].write_text(head + text)
    config = load_config(homes[3])
    effective = config.next.parameters.effective
    assert config.at(effective - 1).parameters.version == 1
    later = config.at(effective)
    assert later.parameters.version == 2
    verify_configured_parameters(later, effective)
    signed = file.with_name("next.signed.json")
    obj = json.loads(signed.read_text())
    signed.write_text(json.dumps(obj | {"signatures": obj["signatures"][:2]}, sort_keys=True, separators=(",", ":")))
    with pytest.raises(Rejected) as caught:
        verify_configured_parameters(later, effective)
    assert caught.value.reason == "no_quorum"


def test_signatures_from_apart_are_merged(tmp_path, homes, made):
    file, digest = made
    apart = []
    for i in range(3):
        apart.append(tmp_path / f"from{i}.json")
        assert sign(i, homes, file, digest, "--out", apart[-1]).exit_code == 0
    merged = get_json("parameters", "merge", file, *apart, apart[0], "-c", homes[0])
    assert (merged["signatures"], merged["is_enough"]) == (3, True)
    other = tmp_path / "other.toml"
    other.write_text(encode_parameters(replace(load_parameters(file), heartbeat_s=5)))
    assert run("parameters", "merge", other, *apart, "-c", homes[0]).exit_code == 1


def test_nothing_is_signed_unread_twice_or_by_a_stranger(tmp_path, homes, made):
    file, digest = made
    signed = tmp_path / "next.signed.json"
    assert run("parameters", "sign", file, "-c", homes[0]).exit_code == 2
    assert sign(0, homes, file, "0x" + "11" * 32).exit_code == 2
    assert not signed.exists()
    assert sign(0, homes, file, digest).exit_code == 0
    other = tmp_path / "other.toml"
    other.write_text(encode_parameters(replace(load_parameters(file), patience_s=31)))
    again = sign(0, homes, other, "0x" + compute_digest(load_parameters(other)).hex())
    assert json.loads(again.stdout)["error"] == "signed_otherwise"
    stranger = write_folder(tmp_path / "stranger", 0, key=b"\x05\x06\x07\x08" * 8, parameters=make_two_vaults())
    refused = run("parameters", "sign", file, "--digest", digest, "-c", stranger, "--json")
    assert json.loads(refused.stdout)["error"] == "not_operator"


def test_a_running_node_and_a_missing_journal_keep_a_key_from_signing(tmp_path, homes, made):
    file, digest = made
    journal = Journal(homes[0].with_name("journal.db"), NOW, 60)
    assert sign(0, homes, file, digest).exit_code == 75
    journal.close()
    homes[1].with_name("journal.db").unlink()
    result = sign(1, homes, file, digest)
    assert json.loads(result.stdout)["error"] == "no_journal"
    assert not homes[1].with_name("journal.db").exists()


@pytest.mark.parametrize("wrong", ["one_vault", "two_instants", "old_version", "other_vaults", "no_quorum"])
def test_a_set_that_nobody_wants_is_not_signed(tmp_path, homes, made, wrong):
    file, _ = made
    good = load_parameters(file)
    one, two = good.controls
    if wrong == "one_vault":
        bad = replace(good, controls=(one,))
    elif wrong == "two_instants":
        body = RotateOperators(1, 3, NOW + 6 * DAY, make_account("t"), OPERATORS[:3])
        bad = replace(good, controls=(one, replace(two, value=encode_body(body))))
    elif wrong == "old_version":
        bad = replace(good, version=1)
    elif wrong == "other_vaults":
        bad = replace(good, vaults=good.vaults[:1], controls=())
    else:
        body = RotateOperators(1, 2, NOW + 5 * DAY, make_account("t"), OPERATORS[:3])
        bad = replace(good, controls=tuple(replace(c, value=encode_body(body)) for c in good.controls))
    path = tmp_path / "bad.toml"
    path.write_text(encode_parameters(bad))
    result = sign(0, homes, path, "0x" + compute_digest(load_parameters(path)).hex())
    assert result.exit_code == 1, result.output
    assert not (tmp_path / "bad.signed.json").exists()


def test_the_next_version_is_written_for_editing(tmp_path, homes):
    data = get_json("parameters", "next", "--from", NOW + 3600, "--out", tmp_path / "n.toml", "-c", homes[0])
    assert data["changed"] == ["version", "effective"]
    assert get_json("parameters", "show", "-c", homes[0])["version"] == 1


def test_who_signs_reads_what_facts_of_each_tier_will_count_for(tmp_path, homes):
    tier = TierParameters(3, 20_000, 10_000, 20_000, 40_000, Amount(2_500 * 10**6))
    path = tmp_path / "tiers.toml"
    path.write_text(encode_parameters(replace(make_two_vaults(), version=2, effective=NOW + DAY, tiers=(tier,))))
    shown = get_json("parameters", "show", path, "-c", homes[0])
    assert "tiers" in shown["changed"]
    assert shown["tiers"]["1"] == "lose 0 % and 0 % per hour, weigh 0 % and 0 % per hour, carry any value"
    assert shown["tiers"]["2"].endswith("carry at most 10,000,000.00 USDC")
    assert shown["tiers"]["3"].startswith("lose 2 % and 1 % per hour, weigh 2 % and 4 % per hour, carry at most 2,500")
    assert get_json("parameters", "show", "-c", homes[0])["tiers"]["3"].startswith("lose 0.5 % and 1 % per hour")
    assert "facts of tier 3" in run("parameters", "show", path, "-c", homes[0]).output


def test_a_next_set_that_does_not_follow_is_refused_when_it_is_read(tmp_path, homes):
    same = tmp_path / "same.toml"
    same.write_text(encode_parameters(replace(make_two_vaults(), effective=NOW + DAY)))
    homes[0].write_text(f'next_parameters = "{same}"\nnext_parameter_signatures = "x.json"\n' + homes[0].read_text())
    result = run("parameters", "show", "-c", homes[0])
    assert result.exit_code == 3
    assert "does not follow" in result.stderr


def test_times_and_amounts_are_read_exactly():
    assert read_time("1790000000") == read_time("2026-09-21T14:13:20Z") == 1_790_000_000
    assert read_amount("1.5", 6) == 1_500_000
    assert read_amount("7", 0) == 7
    for text in ("1.", "", ".5x", "-1", "1e3"):
        with pytest.raises(Rejected):
            read_amount(text, 0)
