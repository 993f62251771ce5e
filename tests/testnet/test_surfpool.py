"""A Solana chain on the loopback: what surfpool and its front answer, what users do there, how endpoints lie."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from solders.pubkey import Pubkey

from contracts.solana import client as c
from messages.digests import get_address
from messages.errors import Rejected, Unavailable
from messages.hashing import sha256
from relayer.demo.calls import Approve, Claim, Deposit, Mint
from relayer.demo.scenario import ChainPlan
from relayer.demo.site import DEPLOYER, VaultPlan
from relayer.testnet.devnet import find_reason, start_devnet
from relayer.testnet.lying_proxy import Forger, start_lying_proxy
from relayer.testnet.processes import Group
from relayer.testnet.solana_door import tell
from relayer.testnet.surfnet_front import CLOCK, History
from relayer.testnet.surfpool import (
    SOURCE,
    ask_solana,
    find_surfnet,
    follow_build,
    get_build_environment,
    install_surfnet,
)

PLAN = VaultPlan(tuple(sorted(get_address(sha256(b"%d" % i)) for i in range(4))), 3, 60, (10**10, 10**10, 10**11), 6)
FINAL = {"commitment": "finalized", "encoding": "base64"}


def make_state(sequence, head=b"\x11" * 32, vault_id=b"\x22" * 32):
    data = c.STATE_MAGIC + struct.pack("<Q", sequence) + head + vault_id
    return data.ljust(c.STATE_BYTES, b"\0")


def make_account(data):
    return {"data": [base64.b64encode(data).decode(), "base64"], "owner": "x", "lamports": 1}


def make_clock(slot):
    return make_account(struct.pack("<QqQQq", slot, 0, 0, 0, 1_800_000_000 + slot))


# ---- building ---------------------------------------------------------------------------------------------------------


def test_without_rust_and_without_surfpool_a_person_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable) as caught:
        install_surfnet(tmp_path)
    assert caught.value.reason == "no_surfpool"
    assert "rustup" in str(caught.value)


def make_program(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def test_a_compiler_that_is_too_old_is_named_with_what_is_needed(tmp_path, monkeypatch):
    make_program(tmp_path / "cargo", "exit 1\n")
    make_program(tmp_path / "rustc", "echo 'rustc 1.80.0 (of long ago)'\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable) as caught:
        install_surfnet(tmp_path)
    assert caught.value.got == "1.80, 1.80"
    assert caught.value.expected == "1.97"


def test_a_build_that_fails_says_why_and_leaves_no_program(tmp_path, monkeypatch):
    make_program(tmp_path / "cargo", "echo '   Compiling one v1' >&2; echo 'error: no space left' >&2; exit 101\n")
    make_program(tmp_path / "rustc", "echo 'rustc 1.99.0'\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    said = []
    with pytest.raises(Unavailable) as caught:
        install_surfnet(tmp_path / "tools", said.append)
    assert caught.value.reason == "no_surfpool"
    assert "no space left" in str(caught.value)
    assert "built once" in said[0]
    assert find_surfnet(tmp_path / "tools") is None


def test_a_build_that_succeeds_leaves_the_program_and_nothing_else(tmp_path, monkeypatch):
    home = tmp_path / "tools" / "surfpool"
    release = home / "target" / "release"
    make_program(tmp_path / "cargo", f"mkdir -p {release}; echo program > {release}/surfnet\n")
    make_program(tmp_path / "rustc", 'test "$1" = +nightly && echo "rustc 1.97.0-nightly" || echo "rustc 1.95.0"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert install_surfnet(tmp_path / "tools", lambda _: None).read_text() == "program\n"
    assert [p.name for p in home.iterdir()] == ["surfnet"]


@pytest.mark.parametrize(("code", "found"), [(0, {"OPENSSL_NO_VENDOR": "1"}), (1, {})])
def test_the_build_takes_the_openssl_of_the_system_where_it_can_be_compiled_against(tmp_path, monkeypatch, code, found):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert get_build_environment() == {}
    make_program(tmp_path / "pkg-config", f"exit {code}\n")
    assert get_build_environment() == found


def test_the_build_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr("relayer.testnet.surfpool.TELL_S", 0.0)
    said = []
    tail = follow_build(["   Compiling a v1\n", "warning: x\n", "   Compiling b v1\n"], 9, said.append)
    assert said[-1] == "surfpool: 2 of 9 crates compiled"
    assert tail[-1] == "Compiling b v1"


def test_the_lock_file_names_no_registry_but_the_public_one():
    sources = {line for line in (SOURCE / "Cargo.lock").read_text().splitlines() if line.startswith("source")}
    assert sources == {'source = "registry+https://github.com/rust-lang/crates.io-index"'}


# ---- the front --------------------------------------------------------------------------------------------------------


def test_a_finalized_read_shows_the_newest_finalized_slot_and_no_later_one():
    history = History()
    for slot in range(100, 140):
        history.record(slot - 31, {CLOCK: make_clock(slot), "vault": make_account(b"%d" % slot)})
    slot, (clock, vault) = history.find([CLOCK, "vault"])
    assert slot == 139 - 31
    assert clock == make_clock(slot)
    assert vault == make_account(b"%d" % slot)


def test_an_account_that_was_not_looked_at_yet_has_no_finalized_state():
    history = History()
    for slot in range(100, 140):
        accounts = {CLOCK: make_clock(slot)} | ({"vault": None} if slot >= 120 else {})
        history.record(slot - 31, accounts)
    assert history.find([CLOCK, "vault"]) is None
    assert history.find([CLOCK]) is not None
    history.record(120, {CLOCK: make_clock(151), "vault": make_account(b"x")})
    assert history.find([CLOCK, "vault"]) == (120, [make_clock(120), None])


def test_a_later_look_at_a_slot_replaces_an_earlier_one_and_an_older_slot_is_passed_over():
    history = History()
    history.record(0, {CLOCK: make_clock(7), "vault": make_account(b"early")})
    history.record(0, {CLOCK: make_clock(7), "vault": make_account(b"late")})
    history.record(0, {CLOCK: make_clock(6), "vault": make_account(b"past")})
    history.record(7, {CLOCK: make_clock(9), "vault": None})
    assert history.find(["vault"]) == (7, [make_account(b"late")])


class Node(BaseHTTPRequestHandler):
    """The least of a node: what each method answers is the server's table."""

    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": self.server.answers[call["method"]]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def node():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Node)
    server.answers = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def make_state_answer(sequence):
    value = [make_account(make_state(sequence)), make_clock(50), None]
    return {"context": {"slot": 50}, "value": value}


@pytest.fixture
def front(node, tmp_path):
    """A front before the least of a node, which shows slot 20 as its newest and its finalized one."""
    node.answers = {"getSlot": 20, "getMultipleAccounts": {"value": [make_clock(20)]}}
    with Group(tmp_path) as group:
        target = f"http://127.0.0.1:{node.server_address[1]}"
        process = group.add("front", [sys.executable, "-m", "relayer.testnet.surfnet_front", "--target", target])
        process.start()
        url = str(process.wait_for_event("ready")["url"])
        process.wait_until(lambda: has_final(url), "a finalized snapshot")
        yield url


def has_final(url, slot=0):
    try:
        found = ask_solana(url, "getMultipleAccounts", [[CLOCK], {**FINAL, "minContextSlot": slot}])
    except Rejected:
        return False
    return found["context"]["slot"] == 20


def test_the_front_answers_from_its_history_and_refuses_what_would_be_older_than_asked_for(front, node):
    node.answers["getMultipleAccounts"] = {"value": [make_clock(51)]}
    assert has_final(front, 20)
    with pytest.raises(Rejected, match="-32016"):
        ask_solana(front, "getMultipleAccounts", [[CLOCK], {**FINAL, "minContextSlot": 21}])
    newest = ask_solana(front, "getMultipleAccounts", [[CLOCK], {"commitment": "processed"}])
    assert newest == {"value": [make_clock(51)]}
    with pytest.raises(Rejected, match="base64 only"):
        ask_solana(front, "getMultipleAccounts", [[CLOCK], {"encoding": "base58"}])


def test_the_front_shows_a_transaction_when_its_slot_is_final_and_not_before(front, node):
    node.answers["getSignaturesForAddress"] = [{"signature": "b", "slot": 21}, {"signature": "a", "slot": 20}]
    listed = ask_solana(front, "getSignaturesForAddress", ["vault", {"commitment": "finalized"}])
    assert [entry["signature"] for entry in listed] == ["a"]
    assert len(ask_solana(front, "getSignaturesForAddress", ["vault", {"commitment": "confirmed"}])) == 2
    for slot, is_there in ((20, True), (21, False)):
        node.answers["getTransaction"] = {"slot": slot}
        found = ask_solana(front, "getTransaction", ["a", {"encoding": "json"}])  # finalized by default
        assert (found is not None) is is_there


# ---- endpoints that lie -----------------------------------------------------------------------------------------------


def test_a_liar_forges_the_head_of_every_number_after_those_that_were_there():
    forger = Forger()
    assert forger.forge(make_state(7)) == (make_state(7), 0)
    data, sequence = forger.forge(make_state(8))
    assert sequence == 8
    assert (c.decode_state(data).outbox_sequence, c.decode_state(data).vault_id) == (8, b"\x22" * 32)
    assert c.decode_state(data).outbox_head != b"\x11" * 32
    assert forger.forge(make_state(8)) == (data, 8)
    assert forger.forge(make_state(7)) == (make_state(7), 0)
    assert forger.forge(make_state(8)[:-1]) == (make_state(8)[:-1], 0)


def test_a_liar_that_is_ahead_tells_of_one_packet_more_and_never_two_heads_for_it():
    forger = Forger(is_ahead=True)
    first, sequence = forger.forge(make_state(7))
    assert sequence == c.decode_state(first).outbox_sequence == 8
    assert forger.forge(make_state(7))[0] == first
    second, sequence = forger.forge(make_state(8, head=b"\x33" * 32))
    assert sequence == c.decode_state(second).outbox_sequence == 9
    assert c.decode_state(second).outbox_head != c.decode_state(first).outbox_head


def test_a_lying_proxy_is_honest_until_it_is_told_and_again_afterwards(node, tmp_path):
    port = node.server_address[1]
    with Group(tmp_path) as group:
        process, own = start_lying_proxy(group, "liar", port)
        url = f"http://127.0.0.1:{own}/any"

        def read(sequence):
            node.answers["getMultipleAccounts"] = make_state_answer(sequence)
            return ask_solana(url, "getMultipleAccounts", [["vault", CLOCK, "none"], FINAL])

        assert read(7) == make_state_answer(7)
        os.kill(process.pid, signal.SIGUSR1)
        process.wait_for_event("lying")
        assert read(7) == make_state_answer(7)
        forged = read(8)
        assert forged["value"][1:] == make_state_answer(8)["value"][1:]
        assert forged["value"][0] != make_state_answer(8)["value"][0]
        assert process.wait_for_event("forged")["sequence"] == 8
        node.answers["getSlot"] = 5
        assert ask_solana(url, "getSlot") == 5
        os.kill(process.pid, signal.SIGUSR2)
        process.wait_for_event("honest")
        assert read(8) == make_state_answer(8)


def test_an_endpoint_whose_node_is_gone_answers_with_an_error(node, tmp_path):
    port = node.server_address[1]
    with Group(tmp_path) as group:
        _, own = start_lying_proxy(group, "liar", port)
        node.shutdown()
        node.server_close()
        with pytest.raises(Rejected) as caught:
            ask_solana(f"http://127.0.0.1:{own}", "getSlot")
    assert "does not answer" in str(caught.value)


def test_a_failure_is_told_in_the_words_of_the_vault():
    assert tell('{"err": {"InstructionError": [2, {"Custom": 23}]}}') == "cash"
    assert tell("{'InstructionError': [2, {'Custom': 31}]}") == "unopened"
    assert tell("Blockhash not found") == "Blockhash not found"


# ---- a real chain -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def devnet(tmp_path_factory):
    """surfpool with a vault and endpoints that can lie, for all tests here."""
    reason = find_reason(("solana",))
    if reason:
        pytest.skip(reason)
    with Group(tmp_path_factory.mktemp("surfpool")) as group:
        plan = ChainPlan("three", "solana", "solana:optsettle-9")
        found = start_devnet(group, plan, bytes(32), slots_per_epoch=1, faults=True)
        asyncio.run(found.site.create(PLAN, ["alice"], [sha256(b"gas")], lambda _: asyncio.sleep(0)))
        yield found


def act(site, user, call):
    sent = site.send(user, call)
    return 0 if sent is None else site.finish(sent)


def read_final(site, url):
    found = ask_solana(url, "getMultipleAccounts", [[site.vault_text, CLOCK], FINAL])
    return found["context"]["slot"], [base64.b64decode(a["data"][0]) for a in found["value"]]


@pytest.mark.slow
def test_a_user_pays_into_the_vault_and_the_chain_says_why_it_refuses(devnet):
    site = devnet.site
    alice, before = site.get_account("alice"), site.get_tokens(site.account)
    act(site, DEPLOYER, Mint(alice, 500))
    assert act(site, "alice", Approve(500)) == 0
    sequence = site.get_outbox_sequence()
    assert act(site, "alice", Deposit(400, alice)) > 1_000
    assert site.get_tokens(site.account) == before + 400
    assert site.get_tokens(alice) == 100
    assert site.get_outbox_sequence() == sequence + 1
    with pytest.raises(Rejected) as caught:
        act(site, "alice", Claim(alice))
    assert caught.value.reason == "reverted"
    assert "amount" in str(caught.value)
    assert "alice on chain three" in str(caught.value)
    assert site.get_tokens(alice) == 100


@pytest.mark.slow
def test_an_operator_is_told_the_program_its_operators_and_four_endpoints(devnet):
    table = devnet.make_table(60.0)
    assert table["settings"]["program"] == str(devnet.site.network.program)
    assert table["settings"]["operator_sets"][0]["threshold"] == PLAN.threshold
    assert Pubkey.from_string(table["vault"]) == Pubkey.from_bytes(devnet.site.account)
    assert [e["name"] for e in table["endpoints"]] == ["proxied", "second", "third", "fourth"]
    for endpoint in [*table["endpoints"], *devnet.get_endpoints(3)]:
        assert ask_solana(endpoint["rpc"], "getGenesisHash").startswith(devnet.chain.partition(":")[2])


@pytest.mark.slow
def test_what_is_read_as_finalized_is_what_was_there_at_that_slot(devnet):
    site, url = devnet.site, devnet.endpoints[0]["rpc"]
    devnet.make_table(60.0)
    alice = site.get_account("alice")
    act(site, DEPLOYER, Mint(alice, 5))
    before = site.get_outbox_sequence()
    landed = site.network.get_slot("processed")
    act(site, "alice", Deposit(5, alice))
    slot, (state, clock) = read_final(site, url)
    assert slot < landed
    assert struct.unpack_from("<Q", clock)[0] == slot
    assert c.decode_state(state).outbox_sequence <= before
    newest = site.read(site.vault.state)
    assert c.decode_state(newest).outbox_sequence == before + 1
    listed = ask_solana(url, "getSignaturesForAddress", [site.vault_text, {"commitment": "finalized"}])
    assert all(entry["slot"] <= slot + 2 for entry in listed)
    devnet.liars[0].wait_until(lambda: read_final(site, url)[1][0] == newest, "the deposit is final", 40.0)
    slot, _ = read_final(site, url)
    assert slot >= landed
    (entry, *_) = ask_solana(url, "getSignaturesForAddress", [site.vault_text, {"commitment": "finalized"}])
    config = {"commitment": "finalized", "encoding": "json", "maxSupportedTransactionVersion": 0}
    found = ask_solana(url, "getTransaction", [entry["signature"], config])
    assert found["meta"]["innerInstructions"]
    assert found["meta"]["err"] is None


@pytest.mark.slow
def test_a_read_that_would_be_older_than_asked_for_is_refused(devnet):
    site, url = devnet.site, devnet.endpoints[1]["rpc"]
    devnet.make_table(60.0)
    slot, _ = read_final(site, url)
    config = {**FINAL, "minContextSlot": slot + 1_000}
    with pytest.raises(Rejected) as caught:
        ask_solana(url, "getMultipleAccounts", [[site.vault_text, CLOCK], config])
    assert "-32016" in str(caught.value)


@pytest.mark.slow
def test_one_endpoint_of_all_and_all_of_one_operator_lie_when_they_are_told_to(devnet):
    site = devnet.site
    devnet.make_table(60.0)
    alice = site.get_account("alice")
    devnet.liars[0].wait_until(
        lambda: all(_is_newest(site, e["rpc"]) for e in devnet.endpoints), "everything is final", 40.0
    )
    assert devnet.start_lies() == ("fourth", "op3")
    for liar in devnet.liars:
        liar.wait_for_event("lying")
    assert _is_newest(site, devnet.endpoints[3]["rpc"])  # it met this number before it began
    act(site, DEPLOYER, Mint(alice, 5))
    act(site, "alice", Deposit(5, alice))
    honest = devnet.endpoints[0]["rpc"]
    devnet.liars[0].wait_until(lambda: _is_newest(site, honest), "the deposit is final", 40.0)
    _, (state, _) = read_final(site, honest)
    for more, endpoint in ((0, devnet.endpoints[3]), *((1, e) for e in devnet.get_endpoints(3))):
        _, (told, _) = read_final(site, endpoint["rpc"])
        assert c.decode_state(told).outbox_sequence == c.decode_state(state).outbox_sequence + more
        assert c.decode_state(told).outbox_head != c.decode_state(state).outbox_head
    assert devnet.get_endpoints(0) == devnet.endpoints
    assert devnet.count_lies() >= 2


def _is_newest(site, url):
    return read_final(site, url)[1][0] == site.read(site.vault.state)
