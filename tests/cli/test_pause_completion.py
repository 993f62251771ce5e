"""`relayer pause` against the built vault over HTTP, and `relayer completion` in a real shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from chains.evm.codec import encode_call
from messages.digests import get_address
from relayer.cli import app
from relayer.keys import Journal
from tests.builders import make_key
from tests.cli.live_chain import LiveChain
from tests.cli.live_server import write_live

GAS_KEY = make_key("gas of a pause")


@pytest.fixture
def chain():
    with LiveChain(funded=(get_address(GAS_KEY),)) as live:
        yield live


def write(folder, chain, **changes):
    return write_live(folder, chain, gas=GAS_KEY, **changes)


def pause(path, *arguments):
    result = CliRunner().invoke(app, ["pause", "-c", str(path), "--json", *arguments])
    assert "Traceback" not in result.output, result.output
    return result


def is_paused(chain) -> bool:
    words = chain.network.call(chain.vault, encode_call("get_control()"))
    return words[64:96] == (1).to_bytes(32, "big")


def test_one_operator_pauses_a_vault_beside_its_running_node(tmp_path, chain):
    path = write(tmp_path, chain)
    journal = Journal(tmp_path / "journal.db", 1_800_000_000, 60)  # as a node holds it
    assert not is_paused(chain)
    result = pause(path, "--yes")
    journal.close()
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["vaults"][0]["state"] == "sent"
    chain.network.mine()
    assert is_paused(chain)
    again = pause(path, "--yes")
    assert json.loads(again.stdout)["vaults"][0]["state"] == "paused_already"


def test_a_stranger_pauses_nothing(tmp_path, chain):
    path = write(tmp_path, chain, key=make_key("stranger"))
    result = pause(path, "--yes")
    assert result.exit_code == 1
    assert "revert_" in json.loads(result.stdout)["vaults"][0]["detail"]
    chain.network.mine()
    assert not is_paused(chain)


def test_a_pause_has_to_be_meant_and_named_rightly(tmp_path, chain):
    path = write(tmp_path, chain)
    assert pause(path).exit_code == 2
    assert pause(path, "--yes", "--chain", "1").exit_code == 1
    chain.network.mine()
    assert not is_paused(chain)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell):
    result = CliRunner().invoke(app, ["completion", shell])
    assert result.exit_code == 0
    assert "_RELAYER_COMPLETE" in result.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.stdout, text=True, check=True)


def test_a_shell_is_told_the_commands():
    environment = {
        **os.environ,
        "_RELAYER_COMPLETE": "complete_bash",
        "COMP_WORDS": "relayer par",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from relayer.cli import main; main()"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "parameters" in done.stdout, done


def test_an_unknown_shell_is_wrong_usage():
    assert CliRunner().invoke(app, ["completion", "tcsh"]).exit_code == 2
