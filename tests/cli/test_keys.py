"""`relayer keys`: encrypted files only, nothing overwritten, nothing of a key or password in any output."""

from __future__ import annotations

import json

import pytest
from eth_keyfile.keyfile import create_keyfile_json
from typer.testing import CliRunner

from messages.digests import get_address
from relayer.cli import app
from relayer.commands import keys
from relayer.keys import Journal, Secret, load_key_file
from tests.builders import OPERATORS
from tests.cli.operator_files import write_folder, write_secret

CANARY = bytes.fromhex("c0ffee0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d")
ADDRESS = "0x" + get_address(CANARY).hex()


def run(*arguments, text=None):
    result = CliRunner().invoke(app, ["keys", *map(str, arguments)], input=text)
    assert "Traceback" not in result.output
    assert CANARY.hex() not in result.output.lower()
    return result


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_secret(tmp_path / "password", b"canary of a password")
    body = create_keyfile_json(CANARY, b"another password", version=3, kdf="pbkdf2", iterations=1000)
    (tmp_path / "old.json").write_text(json.dumps(body))
    write_secret(tmp_path / "old.password", b"another password")
    return tmp_path


def test_a_new_key_is_opened_by_its_password_and_by_no_other(folder):
    result = run("new", "k.json", "--password", "file:password", "--throwaway", "--json")
    assert result.exit_code == 0, result.output
    address = json.loads(result.stdout)["address"]
    assert (folder / "k.json").stat().st_mode & 0o777 == 0o600
    key = load_key_file(folder / "k.json", Secret(b"canary of a password"), is_throwaway=True)
    assert "0x" + get_address(key.reveal()).hex() == address
    exported = run("export-public", "k.json", "--password", "file:password")
    assert exported.stdout.strip() == address
    wrong = run("export-public", "k.json", "--password", "file:old.password")
    assert wrong.exit_code == 1
    assert "does not open" in wrong.stderr


def test_a_key_for_use_costs_its_guesser_a_lot_and_a_password_file_is_made_for_it(folder):
    result = run("new", "k.json", "--new-password-file", "fresh.password")
    assert result.exit_code == 0, result.output
    assert (folder / "fresh.password").stat().st_mode & 0o777 == 0o600
    shown = run("show", "k.json", "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["cost"] >= 2**18
    password = (folder / "fresh.password").read_text().strip()
    assert password not in result.output
    assert len(load_key_file(folder / "k.json", Secret(password.encode())).reveal()) == 32


def test_nothing_is_overwritten(folder):
    before = (folder / "old.json").read_bytes()
    for arguments in (
        ("new", "old.json", "--password", "file:password"),
        ("import", "old.json", "--from", "old.json", "--from-password", "file:old.password"),
        ("new", "k.json", "--new-password-file", "password"),
    ):
        assert run(*arguments).exit_code == 1
    assert (folder / "old.json").read_bytes() == before
    assert not (folder / "k.json").exists()


def test_an_imported_key_is_the_same_key_and_stands_nowhere_in_the_clear(folder):
    command = ["import", "k.json", "--from", "old.json", "--from-password", "file:old.password"]
    result = run(*command, "--password", "file:password", "--throwaway", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["address"] == ADDRESS
    assert run("show", "old.json").exit_code == 1  # a node would not take its cheap guard
    for path in folder.iterdir():
        data = path.read_bytes()
        assert CANARY not in data
        assert CANARY.hex().encode() not in data.lower()


@pytest.mark.parametrize("spoil", ["none", "text", "version", "kdf", "cost", "list"])
def test_what_is_no_keystore_is_not_imported(folder, spoil):
    body = json.loads((folder / "old.json").read_text())
    if spoil == "version":
        body["version"] = 1
    if spoil == "kdf":
        body["crypto"]["kdf"] = "none"
    if spoil == "cost":
        body["crypto"]["kdfparams"]["c"] = 10**12
    text = {"text": CANARY.hex(), "list": "[]"}.get(spoil, json.dumps(body))
    if spoil == "none":
        (folder / "old.json").unlink()
    else:
        (folder / "old.json").write_text(text)
    command = ["import", "k.json", "--from", "old.json", "--from-password", "file:old.password"]
    result = run(*command, "--password", "file:password")
    assert result.exit_code == 1
    assert "[key_file]" in result.stderr
    assert not (folder / "k.json").exists()


def test_a_changed_address_in_a_file_is_noticed(folder):
    body = json.loads((folder / "old.json").read_text())
    assert run("export-public", "old.json", "--password", "file:old.password").stdout.strip() == ADDRESS
    body["address"] = OPERATORS[0].hex()
    (folder / "old.json").write_text(json.dumps(body))
    result = run("export-public", "old.json", "--password", "file:old.password")
    assert result.exit_code == 1
    assert "wrong_address" in result.stderr


def test_a_password_is_asked_from_a_person_and_never_taken_from_the_command(folder, monkeypatch):
    assert run("new", "k.json").exit_code == 2  # nobody to ask
    assert run("new", "k.json", "--password", "canary of a password").exit_code == 2
    monkeypatch.setattr(keys, "is_terminal", lambda: True)
    short = run("new", "k.json", "--throwaway", text="short\nshort\n")
    assert short.exit_code == 2
    typed = run("new", "k.json", "--throwaway", text="typed by a person\ntyped by a person\n")
    assert typed.exit_code == 0, typed.output
    assert "typed by a person" not in typed.output
    assert load_key_file(folder / "k.json", Secret(b"typed by a person"), is_throwaway=True)


def test_an_open_password_file_is_refused(folder):
    (folder / "password").chmod(0o644)
    result = run("new", "k.json", "--password", "file:password")
    assert result.exit_code == 4
    assert "chmod 600" in result.stderr


def test_a_first_journal_needs_the_word_of_a_person(folder):
    path = write_folder(folder / "op", is_first=False)
    address = "0x" + OPERATORS[0].hex()
    for word in ([], ["--never-signed", "0x" + OPERATORS[1].hex()], ["--never-signed", "yes"]):
        result = run("first-journal", "-c", path, *word)
        assert result.exit_code == 2
        assert "only you can know" in result.stderr.lower()
        assert not (folder / "op" / "journal.db").exists()
    assert run("first-journal", "-c", path, "--never-signed", address).exit_code == 0
    journal = Journal(folder / "op" / "journal.db", 1_800_000_000, 60)
    assert journal.quarantine_until is None
    journal.close()
    assert run("first-journal", "-c", path, "--never-signed", address).exit_code == 1


def test_a_node_that_ran_before_gets_no_first_journal(folder):
    path = write_folder(folder / "op", is_first=False)
    (folder / "op" / "store.db").touch()
    result = run("first-journal", "-c", path, "--never-signed", "0x" + OPERATORS[0].hex())
    assert result.exit_code == 1
    assert "ran before" in result.stderr
