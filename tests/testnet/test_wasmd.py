"""Validators on the loopback, what users do there, and what an operator is told of it."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from cosmpy.protos.cosmwasm.wasm.v1.tx_pb2 import MsgMigrateContract

from chains.cosmos.address import decode_address
from messages.digests import get_address
from messages.errors import Rejected, Unavailable
from messages.hashing import sha256
from relayer.demo.calls import Approve, Claim, Deposit, Mint
from relayer.demo.scenario import ChainPlan
from relayer.demo.site import DEPLOYER, VaultPlan
from relayer.testnet.devnet import find_reason, start_devnet
from relayer.testnet.processes import Group
from relayer.testnet.wasmd import ask_comet, find_wasmd, install_wasmd

PLAN = VaultPlan(tuple(sorted(get_address(sha256(b"%d" % i)) for i in range(4))), 3, 60, (10**10, 10**10, 10**11), 6)


@pytest.fixture(scope="module")
def devnet(tmp_path_factory):
    """A network of two validators with a vault, for all tests here."""
    reason = find_reason(("cosmos",))
    if reason:
        pytest.skip(reason)
    with Group(tmp_path_factory.mktemp("wasmd")) as group:
        found = start_devnet(
            group, ChainPlan("two", "cosmos", "cosmos:optsettle-8"), bytes(32), slots_per_epoch=1, faults=False
        )
        asyncio.run(found.site.create(PLAN, ["alice"], [sha256(b"gas")], lambda _: asyncio.sleep(0)))
        yield found


def act(site, user, call):
    return site.finish(site.send(user, call))


@pytest.mark.slow
def test_a_user_pays_into_the_vault_and_the_chain_says_why_it_refuses(devnet):
    site = devnet.site
    alice, before = site.get_account("alice"), site.get_tokens(site.account)
    act(site, DEPLOYER, Mint(alice, 500))
    act(site, "alice", Approve(500))
    sequence = site.get_outbox_sequence()
    act(site, "alice", Deposit(400, alice))
    assert site.get_tokens(site.account) == before + 400
    assert site.get_tokens(alice) == 100
    assert site.get_outbox_sequence() == sequence + 1
    with pytest.raises(Rejected) as caught:
        act(site, "alice", Claim(alice))
    assert caught.value.reason == "reverted"
    assert "amount" in str(caught.value)
    assert "alice on chain two" in str(caught.value)
    assert site.get_tokens(alice) == 100


@pytest.mark.slow
def test_nobody_can_change_the_code_of_the_vault(devnet):
    site, door = devnet.site, devnet.site.network
    key = site.get_key(DEPLOYER)
    sender = site.get_text(site.get_account(DEPLOYER))
    message = MsgMigrateContract(sender=sender, contract=site.vault_text, code_id=1, msg=b"{}")
    with pytest.raises(Rejected) as caught:
        door.act(key, [message])
    assert "unauthorized" in str(caught.value).lower()


@pytest.mark.slow
def test_an_operator_is_told_a_checkpoint_that_every_validator_has(devnet):
    table = devnet.make_table(30.0)
    height = table["settings"]["checkpoint_height"]
    assert height > devnet.site.start_height
    assert decode_address(table["vault"], "wasm") == devnet.site.account
    for endpoint in table["endpoints"]:
        found = ask_comet(endpoint["rpc"], "commit", {"height": str(height)})["signed_header"]
        assert "0x" + found["commit"]["block_id"]["hash"].lower() == table["checkpoint"]
        signed = [s for s in found["commit"]["signatures"] if s["block_id_flag"] == 2]
        assert len(signed) == 2


@pytest.mark.slow
def test_the_chain_stands_still_without_a_validator_and_goes_on_with_it(devnet):
    door = devnet.site.network
    assert "validator" in devnet.kill_node()
    height = door.get_header()[1]
    asyncio.run(asyncio.sleep(3.0))
    stopped_at = door.get_header()[1]
    assert stopped_at <= height + 1  # what was decided already
    devnet.start_node()
    assert door.get_header()[1] > stopped_at


@pytest.mark.slow
def test_a_stopped_endpoint_comes_back(devnet):
    url = devnet.endpoints[0]["rpc"]
    assert devnet.stop_endpoint() == "proxied"
    with pytest.raises(Unavailable):
        ask_comet(url, "status")
    devnet.start_endpoint()
    devnet.proxies[0].wait_until(lambda: _answers(url), "answers", 10.0)


def _answers(url):
    try:
        return bool(ask_comet(url, "status"))
    except Unavailable:
        return False


def test_without_go_and_without_wasmd_a_person_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("go") is None
    with pytest.raises(Unavailable) as caught:
        install_wasmd(tmp_path)
    assert caught.value.reason == "no_wasmd"
    assert "install Go" in str(caught.value)


def test_a_program_without_its_library_is_none(tmp_path):
    (tmp_path / "wasmd").mkdir()
    (tmp_path / "wasmd" / "wasmd").write_bytes(b"")
    assert find_wasmd(tmp_path) is None


def test_a_family_that_the_testnet_does_not_know_is_refused():
    with pytest.raises(Rejected) as caught:
        find_reason(("evm", "other"))
    assert caught.value.reason == "usage"
