"""`relayer attest`: what another stack's client reads, and what the key never attests twice."""

from __future__ import annotations

import json
import shutil

import pytest

from chains.solana.attestations import (
    AttestationsClient,
    apply_update,
    decode_envelope_abi,
    decode_envelope_borsh,
    decode_envelope_protobuf,
    verify_membership,
    verify_non_membership,
)
from messages.errors import Conflict, Rejected
from messages.packet import compute_commitment, get_packet_commitment_path
from relayer.commands.attest import attest
from relayer.keys import Journal
from relayer.store import Store
from tests.builders import OPERATORS, START, make_key
from tests.cli.operator_files import write_folder

NOW = START + 5_000
DECODERS = {"abi": decode_envelope_abi, "protobuf": decode_envelope_protobuf, "borsh": decode_envelope_borsh}


@pytest.fixture
def home(story, tmp_path):
    """An operator's folder with the records of the story and the journal of a key that signed nothing yet."""
    return make_home(story, tmp_path / "op0", 0)


def make_home(story, path, i, **changes):
    folder, world = story
    config = write_folder(path, i, parameters=world.parameters, is_first=False, **changes)
    shutil.copy(folder / "node0.db", config.parent / "store.db")
    Journal.create_first(config.parent / "journal.db", NOW - 10)
    return config


def get_reason(error, *arguments):
    with pytest.raises(error) as caught:
        attest(*arguments)
    return caught.value.reason


def run(config, vault="1001", first=None, last=None, name="out.json"):
    path = config.parent / name
    answer = attest(config, vault, first, last, path, NOW)
    found = json.loads(path.read_bytes())
    assert {**found, "file": str(path)} == answer.data
    return found


def read_facts(config, vault_id):
    store = Store(config.parent / "store.db")
    try:
        return list(store.iterate_facts(vault_id))
    finally:
        store.close()


def test_a_client_of_another_stack_reads_every_envelope(home, story):
    found = run(home, first=2, last=5)
    assert (found["first_packet"], found["last_packet"], found["attestor"]) == (2, 5, "0x" + OPERATORS[0].hex())
    facts = read_facts(home, bytes.fromhex(found["vault_id"][2:]))
    for name, decode in DECODERS.items():
        state = decode(bytes.fromhex(found["state"][name][2:]))
        packets = decode(bytes.fromhex(found["packets"][name][2:]))
        client, _ = apply_update(AttestationsClient((OPERATORS[0],), 1), state)
        assert client.timestamps == {found["height"]: found["time"]}
        for fact in facts[1:5]:
            path = get_packet_commitment_path(fact.packet.source_client, fact.sequence)
            verify_membership(client, found["height"], packets, path, compute_commitment(fact.packet))
            with pytest.raises(Rejected):
                verify_non_membership(client, found["height"], packets, path)
            with pytest.raises(Rejected):
                verify_membership(client, found["height"], packets, path, b"\1" * 32)
        with pytest.raises(Rejected):
            apply_update(AttestationsClient((OPERATORS[1],), 1), state)


def test_the_same_again_is_the_same_bytes_and_another_vault_is_refused_for_ever(home):
    first = run(home)
    assert run(home, name="again.json") == first
    assert get_reason(Conflict, home, "1000", None, None, home.parent / "other.json", NOW) == "signed_otherwise"
    assert not (home.parent / "other.json").exists()


def test_more_packets_of_the_same_head_are_no_second_word(home):
    assert run(home, first=1, last=3)["state"] == run(home, first=2, last=6, name="more.json")["state"]


@pytest.mark.parametrize(("first", "last"), [(3, 2), (1, 10_000), (10_000, None)])
def test_packets_that_are_not_proven_are_not_attested(home, first, last):
    assert get_reason(Rejected, home, "1001", first, last, home.parent / "out.json", NOW) == "unknown_fact"
    run(home)


def test_nothing_is_overwritten_and_nothing_signed_for_it(home):
    run(home)
    before = (home.parent / "journal.db").stat().st_size
    assert get_reason(Rejected, home, "1001", None, None, home.parent / "out.json", NOW) == "file_exists"
    assert (home.parent / "journal.db").stat().st_size == before


def test_a_key_in_quarantine_of_a_stranger_or_without_a_journal_attests_nothing(story, tmp_path):
    stranger = make_home(story, tmp_path / "a", 0, key=make_key("nobody"))
    assert get_reason(Rejected, stranger, "1001", None, None, tmp_path / "x", NOW) == "not_operator"
    quiet = make_home(story, tmp_path / "b", 1)
    journal = Journal(quiet.parent / "journal.db", NOW, 60)
    journal.record_quarantine(NOW, "test")
    journal.close()
    assert get_reason(Rejected, quiet, "1001", None, None, tmp_path / "x", NOW) == "quarantine"
    lost = make_home(story, tmp_path / "c", 2)
    (lost.parent / "journal.db").unlink()
    assert get_reason(Rejected, lost, "1001", None, None, tmp_path / "x", NOW) == "no_journal"


def test_a_halted_chain_is_not_attested(home, story):
    _, world = story
    store = Store(home.parent / "store.db")
    chain = next(c.chain_id for c in world.chains if c.chain_id.endswith(":1001"))
    store.record_halt(f"chain:{chain}", "test", "test", NOW)
    store.close()
    assert get_reason(Rejected, home, "1001", None, None, home.parent / "x", NOW) == "halted"
