"""A planted key is looked for everywhere a run leaves something: logs, files, messages, tracebacks, figures (fault 25)."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import traceback

import pytest

from messages.bodies import Deposited, WithdrawalRequested
from messages.errors import Rejected
from relayer.health import judge
from relayer.keys import Journal, Secret, create_key_file, load_key_file
from relayer.log import make_logger
from relayer.metrics import compute_families, render
from relayer.service import Service
from tests.builders import OPERATOR_KEYS, TOKEN, make_account
from tests.committee import Committee
from tests.fakes import ToyPlanner, make_toy_chain
from tests.scenarios.test_node_committee import trade

ALICE, BOB = make_account("alice"), make_account("bob")
PASSWORD = b"71c0ffee/c4a4a12/9d2e5b07"


def make_needles(secret):
    """Every shape in which a secret could be written down, and its pieces: a shortened key is a leaked key too."""
    needles = {
        repr(secret)[2:-1].encode(),
        str(int.from_bytes(secret, "big")).encode(),
        str(list(secret))[1:-1].encode(),
    }
    needles |= {base64.b64encode(secret).rstrip(b"="), base64.urlsafe_b64encode(secret).rstrip(b"=")}
    for i in range(len(secret) - 9):
        piece = secret[i : i + 10]
        needles |= {piece, piece[::-1], piece.hex().encode(), piece.hex().upper().encode()}
    return needles


NEEDLES = {
    name: make_needles(s)
    for name, s in {**{f"key {i}": k for i, k in enumerate(OPERATOR_KEYS)}, "password": PASSWORD}.items()
}


def find_secrets(artefacts):
    """(artefact, secret) of every hit."""
    return sorted(
        (where, name)
        for where, data in artefacts.items()
        for name, needles in NEEDLES.items()
        if any(n in data for n in needles)
    )


def read_files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class KeyedCommittee(Committee):
    """Keys come from key files as an operator's do; logs of every level and all messages are kept."""

    def __init__(self, folder, **options):
        super().__init__(folder, **options)
        self.logs = io.StringIO()
        self.messages: list[bytes] = []
        self.crash_in_plan = False
        broadcast = self.bus._broadcast

        def listen(sender, topic, data):
            self.messages.append(topic.encode() + data)
            broadcast(sender, topic, data)

        self.bus._broadcast = listen

    def open(self, i):
        path, journal = self.folder / f"key{i}.json", self.folder / f"journal{i}.db"
        if not path.exists():
            create_key_file(path, Secret(OPERATOR_KEYS[i]), Secret(PASSWORD), is_throwaway=True)
            Journal.create_first(journal, self.clock.now())
        committee = self

        class Planner(ToyPlanner):
            def compute_plan(self, *arguments):
                if committee.crash_in_plan:
                    raise RuntimeError("an injected bug")
                return super().compute_plan(*arguments)

        self.services[i] = Service.open(
            name=f"node{i}",
            store_path=self.folder / f"node{i}.db",
            journal_path=journal,
            operator_key=load_key_file(path, Secret(PASSWORD), is_throwaway=True),
            parameters=self.parameters,
            chains=[make_toy_chain(c, f"account{i}", self.clock) for c in self.chains],
            clock=self.clock,
            gossip=self.bus.connect(f"node{i}"),
            planner=Planner(),
            log=make_logger(level="debug", as_json=True, stream=self.logs),
        )
        return self.services[i]


def describe(error):
    """An exception as a careless reporter would show it: with the locals of every frame."""
    plain = "".join(traceback.format_exception(error))
    return (plain + "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())).encode()


async def crash(c, folder):
    """Let a bug end every node in the middle of a plan, keep what a reporter would send, start again."""
    c.crash_in_plan = True
    trade(c.chains[0], c.clock, nonce=2)
    with pytest.raises(BaseExceptionGroup):
        await c.run_for(40)
    tracebacks = {}
    for i, task in c.tasks.items():
        await asyncio.wait([task])
        error = task.exception()
        assert error is not None
        tracebacks[f"traceback {i}"] = describe(error)
        c.services[i].close()
    assert all(b"an injected bug" in t and b"compute_plan" in t for t in tracebacks.values())
    c.tasks.clear()
    c.crash_in_plan = False
    for i in range(4):
        c.start(i)
    return tracebacks


async def test_a_planted_key_is_nowhere_in_what_a_run_leaves_behind(tmp_path):
    async with KeyedCommittee(tmp_path) as c:
        for chain in c.chains:
            chain.put(Deposited(ALICE, TOKEN, 100), c.clock.now())
            trade(chain, c.clock)
        c.services[1].node.chains[c.chains[0].vault_id].reader.faults["one"] = "forge"
        c.bus.inject(c.services[0].node.get_topic("vote"), b"\x01" * 300)
        await c.run_for(60)
        artefacts = await crash(c, tmp_path)
        await c.run_for(60)
        for chain in c.chains:
            chain.put(WithdrawalRequested(BOB, TOKEN, 30), c.clock.now())
        await c.run_for(60)
        assert [chain.state.claimable[BOB, TOKEN] for chain in c.chains] == [30, 30]
        for i, service in c.services.items():
            status, node = service.get_status(), service.node
            artefacts[f"figures {i}"] = render(service) + repr(judge(compute_families(service))).encode()
            artefacts[f"status {i}"] = repr((status, node.signer, node.signer.__dict__, node.__dict__)).encode()
            artefacts[f"signed by locals {i}"] = describe(_catch(lambda s=node.signer: s.sign_vote(-1, 0, bytes(32))))
            artefacts[f"refused {i}"] = describe(_catch(lambda s=node.signer: s.sign_envelope("proposal", b"")))
        artefacts |= read_files(tmp_path)  # while the write-ahead logs are there
        artefacts |= {f"message {i}": m for i, m in enumerate(c.messages)}
    artefacts |= {f"{name} at the end": data for name, data in read_files(tmp_path).items()}
    artefacts["logs"] = c.logs.getvalue().encode()
    assert len(artefacts["logs"]) > 1000
    assert len(c.messages) > 20
    assert {"node0.db", "node0.db-wal", "journal0.db", "key0.json"} <= set(artefacts)
    assert find_secrets(artefacts) == []


def _catch(call):
    try:
        call()
    except (Rejected, OverflowError) as error:
        return error
    raise AssertionError("it was not refused")


async def test_a_crash_inside_the_signature_itself_shows_no_key_in_its_traceback(tmp_path, monkeypatch):
    from relayer import keys

    async with KeyedCommittee(tmp_path, count=1) as c:
        await c.run_for(10)

        def fail(key, digest):
            raise RuntimeError("the curve library broke")

        monkeypatch.setattr(keys, "sign_digest", fail)
        error = None
        try:
            c.services[0].node.signer.sign_vote(7, 0, b"\7" * 32)
        except RuntimeError as caught:
            error = caught
        text = "".join(traceback.format_exception(error)).encode()
    assert b"the curve library broke" in text
    assert find_secrets({"traceback": text, "logs": c.logs.getvalue().encode()}) == []


def test_a_wrong_password_and_a_damaged_key_file_say_nothing_of_either(tmp_path):
    path = tmp_path / "key.json"
    create_key_file(path, Secret(OPERATOR_KEYS[0]), Secret(PASSWORD), is_throwaway=True)
    texts = {"wrong": describe(_catch(lambda: load_key_file(path, Secret(b"wrong"), is_throwaway=True)))}
    body = json.loads(path.read_text())
    body["crypto"]["mac"] = "00" * 32
    path.write_text(json.dumps(body))
    texts["damaged"] = describe(_catch(lambda: load_key_file(path, Secret(PASSWORD), is_throwaway=True)))
    assert find_secrets(texts) == []


@pytest.mark.parametrize(
    "leak",
    [
        lambda k: k.hex(),
        lambda k: "0x" + k.hex().upper(),
        repr,
        lambda k: str(int.from_bytes(k, "big")),
        lambda k: base64.b64encode(k).decode(),
        lambda k: f"{k.hex()[:24]}...",
        lambda k: f"...{k.hex()[-24:]}",
        lambda k: str(list(k)),
    ],
)
def test_the_search_itself_finds_a_key_in_every_shape(leak):
    text = f"a log line with {leak(OPERATOR_KEYS[2])} in it".encode()
    assert find_secrets({"log": text}) == [("log", "key 2")]
    assert find_secrets({"log": b"a log line without"}) == []


def test_the_search_finds_a_key_among_the_locals_of_a_careless_function():
    def careless(key):
        return key[100]

    with pytest.raises(IndexError) as caught:
        careless(OPERATOR_KEYS[1])
    assert ("traceback", "key 1") in find_secrets({"traceback": describe(caught.value)})
