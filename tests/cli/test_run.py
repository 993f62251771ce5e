"""`relayer run`: a process that starts from files, says what it does, stops cleanly, and says in words and codes why it cannot start."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from messages.digests import sign_digest
from messages.documents import compute_digest
from relayer import operate
from relayer.cli import app
from relayer.commands.control import get_standing, write_signatures
from relayer.database import StoreFailure
from relayer.keys import Journal
from relayer.rules.quorum import compute_parameters_statement
from relayer.toml_writer import encode_parameters
from tests.builders import OPERATOR_KEYS, OPERATORS, make_parameters, make_vault
from tests.cli.operator_files import Program, write_folder


def run(path, *arguments):
    result = CliRunner().invoke(app, ["run", "-c", str(path), *arguments])
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_starts_says_what_it_does_and_stops_cleanly_on_a_signal(tmp_path, number):
    path = write_folder(tmp_path)
    with Program("run", "-c", path) as node:
        line = node.wait_for("event=starting")
        assert f"operator=0x{OPERATORS[0].hex()}" in line
        node.wait_for("event=unavailable")  # endpoints and broker are gone: it waits for them and goes on
        code, out, err = node.stop(number)
    assert code == 0, err
    assert "stopped cleanly" in out
    assert "Traceback" not in err
    assert "Unclosed" not in err


def test_a_second_node_on_the_same_files_is_told_to_try_again_and_json_lines_are_json(tmp_path):
    path = write_folder(tmp_path)
    with Program("run", "-c", path, "--json") as node:
        assert json.loads(node.wait_for('"starting"'))["is_member"] is True
        other = run(path, "--json")
        assert other.exit_code == 75
        assert json.loads(other.stdout)["error"] == "in_use"
        code, out, _ = node.stop()
    assert code == 0
    assert json.loads(out)["schema"] == "relayer/run/1"


def test_a_store_that_fails_ends_with_75(tmp_path, monkeypatch):
    path = write_folder(tmp_path)

    async def fail(service, stop, **_):
        service.close()
        raise StoreFailure("the node's store: disk I/O error")

    monkeypatch.setattr(operate, "operate", fail)
    result = run(path, "--json")
    assert result.exit_code == 75
    assert json.loads(result.stdout)["error"] == "store_failed"
    assert "start the node again" in result.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gossip": {"kind": "memory"}}, "reaches only nodes of one process"),
        ({"gossip": {"kind": "mqtt", "host": "broker.example.org", "port": 1883}}, "TLS"),
        ({"metrics": {"host": "0.0.0.0", "port": 9464}}, "this machine only"),
        ({"operator": {"key": "file:none.json", "password": "file:password"}}, "relayer keys new"),
        ({"operator": {"key": "file:operator.json", "password": "file:password"}}, "guarded too cheaply"),
        ({"genesis_parameters": None, "parameter_signatures": "none.json"}, "none.json"),
        ({"genesis_parameters": None}, "nobody signed these parameters"),
        ({"genesis_parameters": "0x" + "11" * 32}, "nobody signed these parameters"),
        ({"name": "no name"}, "name"),
    ],
)
def test_a_configuration_that_makes_no_node_ends_with_3_and_words(tmp_path, changes, words):
    result = run(write_folder(tmp_path, **changes))
    assert result.exit_code == 3
    assert words in result.stderr


def test_a_wrong_password_ends_with_3_and_shows_nothing_of_it(tmp_path):
    path = write_folder(tmp_path)
    (tmp_path / "password").write_bytes(b"another canary\n")
    result = run(path)
    assert result.exit_code == 3
    assert "password" in result.stderr
    assert "canary" not in result.output


def test_parameters_that_are_not_in_force_yet_end_with_3(tmp_path):
    parameters = make_parameters([make_vault(0)], effective=4_000_000_000)
    result = run(write_folder(tmp_path, parameters=parameters))
    assert result.exit_code == 3
    assert "not in force yet" in result.stderr


def test_a_damaged_journal_ends_with_4(tmp_path):
    path = write_folder(tmp_path)
    journal = Journal(tmp_path / "journal.db", 1_800_000_000, 60)
    with journal._file.transaction() as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute("UPDATE entries SET value = x'01' WHERE i = 2")
    journal.close()
    result = run(path)
    assert result.exit_code == 4
    assert "somebody changed it" in result.stderr


def test_a_running_node_changes_to_the_next_signed_parameters_at_their_instant(tmp_path):
    parameters = make_parameters([make_vault(0)], effective=1_700_000_000)
    later = replace(parameters, version=2, effective=int(time.time()) + 15)
    (tmp_path / "next.toml").write_text(encode_parameters(later))
    committee = get_standing(parameters, {}, 1_800_000_000).committee
    statement = compute_parameters_statement(committee, compute_digest(later))
    signatures = [sign_digest(key, statement) for key in OPERATOR_KEYS[:3]]
    write_signatures(tmp_path / "next.signed.json", later, committee, signatures)
    names = {"next_parameters": "next.toml", "next_parameter_signatures": "next.signed.json"}
    path = write_folder(tmp_path, parameters=parameters, **names)
    with Program("run", "-c", path) as node:
        assert 'parameters="version 1 ' in node.wait_for("event=starting")
        assert 'parameters="version 2 ' in node.wait_for("event=starting")
        assert node.stop()[0] == 0
    # once used, the earlier ones are over, whatever the configuration says
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("next_")))
    refused = run(path)
    assert refused.exit_code == 3
    assert "never go back" in refused.stderr
