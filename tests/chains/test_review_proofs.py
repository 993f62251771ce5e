"""Attacks on the road from what a source says to a fact: each hit of a review, and seeded fuzzing of the real road.

The fuzzing changes JSON answers, recorded bytes and proof files of the simulated network and demands two things: nothing is accepted
with another value than the honest one, and nothing but Rejected, Conflict or Unavailable is raised.
"""

import copy
import json
import random
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest
from web3.providers.async_base import AsyncBaseProvider

from chains import base, http_json
from chains.evm import verifier
from chains.evm.forks import MAINNET, MINIMAL_PRESET, Fork, build_devnet
from chains.evm.light_client import DAY_S, LightClientConfig
from chains.evm.mpt import encode_rlp
from chains.evm.reader import EvmEndpoint, EvmReader, ReaderSettings
from chains.evm.sim_rpc import LogLimits
from chains.evm.ssz import compute_header_root
from chains.evm.transport import decode_json
from chains.evm.verifier import EvmCodec, EvmVerifier, build_rules, decode_settings, encode_settings
from chains.registry import build_rules_of
from messages.canonical import encode_canonical
from messages.errors import Conflict, Rejected, RelayerError, Unavailable
from messages.ids import get_evm_account
from relayer.archive import ArchivedHeader, ArchiveEnd, ArchiveStart
from relayer.proof_file import (
    Anchor,
    Judge,
    ProofStep,
    decode_proof_file,
    encode_proof_file,
    make_proof_file,
    verify_proof,
)
from relayer.replay import Replay
from relayer.rules.plan import compute_plan
from tests.chains.evm_forge import DEVNET, DEVNET_512, Forge
from tests.chains.harness_evm import EvmHarness

VAULT = bytes([0xAA]) * 20
START = 2 * 64 + 8  # a slot in the third period of the forge's networks
ROAD = "/eth/v1/beacon/light_client/"


def refuse(call, kind=Rejected) -> str:
    with pytest.raises(kind) as caught:
        call()
    return caught.value.reason


# ---- JSON of endpoints ------------------------------------------------------------------------------------------------


def test_a_string_without_an_end_is_refused_in_one_pass():
    """A pattern that backtracks needs hours for it, and no time-out ends a computation."""
    assert refuse(lambda: decode_json(b'["' + b'\\"' * 1_000_000)) in {"malformed", "depth"}
    assert decode_json(b'["' + b'\\"' * 1_000 + b'"]') == ['"' * 1_000]


def test_an_answer_in_utf_16_cannot_hide_its_depth():
    """The parser would guess the encoding; a character with the byte of a quote then hides brackets from the judge of depth."""
    deep = '["\u0122", ' + "[" * 40 + "]" * 40 + ', "\u0122"]'
    for encoding in ("utf-16-le", "utf-16-be", "utf-16", "utf-32"):
        assert refuse(lambda e=encoding: decode_json(deep.encode(e))) in {"malformed", "depth"}
    assert refuse(lambda: decode_json(deep.encode())) == "depth"
    assert decode_json('["\u0122"]'.encode()) == ["\u0122"]


@pytest.mark.parametrize("part", [b"[],", b"{},"])
def test_millions_of_empty_objects_are_refused_before_they_take_memory(part):
    count = http_json.MAX_CONTAINERS
    assert refuse(lambda: decode_json(b"[" + part * count + b"1]")) == "size"
    assert len(decode_json(b"[" + part * 1_000 + b"1]")) == 1_001


def test_millions_of_strings_are_refused_before_they_take_memory():
    assert refuse(lambda: decode_json(b"[" + b'"",' * (http_json.MAX_STRINGS + 1) + b"1]")) == "size"


@pytest.mark.parametrize("text", ['"\\ud800"', '"0x\\udfff"'])
def test_what_an_endpoint_said_can_always_be_written_down(text):
    """A lone surrogate has no bytes: the blame would stop the store instead of the liar."""
    value = decode_json(text.encode())
    for error in (
        Rejected("a", got=value),
        Rejected("a", expected=value),
        Unavailable(value),
        Conflict("a", source=value),
    ):
        assert str(error).encode()


# ---- the reader -------------------------------------------------------------------------------------------------------


class Beacon:
    """A door whose answers a test changes on their way."""

    def __init__(self, inner, change):
        self.inner, self.change = inner, change

    async def get(self, path: str, params: Mapping[str, str]):
        return self.change(path, copy.deepcopy(await self.inner.get(path, params)))


class Execution(AsyncBaseProvider):
    """The same for JSON-RPC."""

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change = inner, change

    async def make_request(self, method, params):
        answer = await self.inner.make_request(method, params)
        if "result" not in answer:
            return answer
        return {**answer, "result": self.change(method, copy.deepcopy(answer["result"]))}


def make_changed_chain(harness, change, n_changed=1):
    """The harness's chain where the first endpoints' answers pass through ``change(route or method, value)``."""
    ends = [
        EvmEndpoint(
            end.name,
            Beacon(end.beacon, change) if i < n_changed else end.beacon,
            Execution(end.execution, change) if i < n_changed else end.execution,
        )
        for i, end in enumerate(harness.network.endpoints)
    ]
    network = harness.network
    reader = EvmReader(
        network.chain_id, harness.vault, harness.checkpoint, network.schedule, ends, ReaderSettings(retry_s=0.0)
    )
    return replace(harness.chain, reader=reader)


async def walk(chain, now, start):
    """The whole road: light client from its checkpoint, head, packets. Returns (points on the way, what was collected)."""
    _, trusted, _ = await base.bootstrap(chain, now)
    states = [trusted, *(after for _, after in (await base.advance(chain, trusted, now)).steps)]
    return [chain.verifier.get_point(state) for state in states], await base.collect(chain, states[-1], start, 0)


@pytest.fixture(scope="module")
def story():
    """Deposits over three sync-committee periods, all final."""
    harness = EvmHarness(preset=MINIMAL_PRESET)
    for amount in (1, 2):
        harness.deposit(amount)
    harness.finalize()
    harness.clock.advance(2 * 64 * 12)
    harness.network.tick()
    harness.deposit(3)
    harness.finalize()
    return harness


def on(name, change):
    return lambda path, value: change(value) if path.endswith(name) else value


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: {"result": proof},
        lambda proof: proof | {"storageProof": [*proof["storageProof"], 5]},
        lambda proof: proof | {"storageProof": [*proof["storageProof"], {}]},
        lambda proof: proof | {"storageProof": proof["storageProof"][:1]},
        lambda proof: proof | {"storageProof": proof["storageProof"] + [{"key": "0x7", "value": [], "proof": []}]},
        lambda proof: {k: v for k, v in proof.items() if k != "storageProof"},
        lambda proof: [proof],
    ],
)
async def test_no_shape_of_a_proof_answer_stops_the_node(story, change):
    """What an answer holds beside the slot that is proven is foreign too: it is refused or read, and the next source is asked."""
    chain = make_changed_chain(story, on("eth_getProof", change))
    _, collected = await walk(chain, story.now(), story.start)
    assert [fact.body.amount for fact in collected.facts] == [1, 2, 3]


async def test_a_proof_answer_with_keys_without_prefix_is_read(story):
    def strip(proof):
        for entry in proof["storageProof"]:
            entry["key"] = entry["key"].removeprefix("0x")
        return proof

    chain = make_changed_chain(story, on("eth_getProof", strip), n_changed=2)
    _, collected = await walk(chain, story.now(), story.start)
    assert len(collected.facts) == 3


@pytest.mark.parametrize(
    ("route", "key"),
    [
        ("finality_update", "finality_branch"),
        ("updates", "finality_branch"),
        ("updates", "next_sync_committee_branch"),
        ("bootstrap", "current_sync_committee_branch"),
    ],
)
async def test_a_padded_branch_that_verifies_can_also_be_recorded(story, route, key):
    """One endpoint that pads its branches must not stop the record of a whole chain: what verifies has bytes."""

    def pad(path, value):
        if route in path:
            for answer in value if isinstance(value, list) else [value]:
                answer["data"][key].insert(0, "0x" + bytes(32).hex())
        return value

    chain = make_changed_chain(story, pad, n_changed=2)
    claim, trusted, blames = await base.bootstrap(chain, story.now())
    assert not blames
    assert chain.codec.decode_bootstrap(chain.codec.encode_bootstrap(claim)) == claim
    steps = (await base.advance(chain, trusted, story.now())).steps
    assert len(steps) > 1
    for update, _ in steps:
        assert chain.codec.decode_update(chain.codec.encode_update(update)) == update


async def test_a_branch_with_something_in_front_verify_refusal(story):
    def pad(path, value):
        if "finality_update" in path:
            value["data"]["finality_branch"].insert(0, "0x" + b"\1".rjust(32, b"\0").hex())
        return value

    chain = make_changed_chain(story, pad, n_changed=1)
    trusted = (await base.bootstrap(chain, story.now()))[1]
    advanced = await base.advance(chain, trusted, story.now())
    assert [blame.reason for blame in advanced.blames] == ["bad_finality"]


async def test_a_node_that_answers_each_small_range_just_in_time_is_given_up():
    """Ten thousand ranges of one block, each a moment before its time-out, would hold a chain for days."""
    harness = EvmHarness(1, log_limits=LogLimits(max_range=1))
    harness.deposit(1)
    harness.finalize()
    for _ in range(300):
        harness.mine()
    last = harness.network.chain.head.number
    honest = harness.make_chain(timeout_s=20.0)
    assert len(await honest.reader.packets(harness.get_source(0), base.Span(0, 1, 0, last))) == 1
    harness.network.endpoints[0].lies.slow_s = 0.02
    slow = harness.make_chain(timeout_s=0.1)
    with pytest.raises(Unavailable) as caught:
        await slow.reader.packets(harness.get_source(0), base.Span(0, 1, 0, last))
    assert caught.value.reason == "timeout"


# ---- bytes of others --------------------------------------------------------------------------------------------------


def nest(size: int) -> bytes:
    """RLP of lists in lists, about ``size`` bytes of heads."""
    data = b"\xc0"
    while len(data) < size:
        digits = len(data).to_bytes((len(data).bit_length() + 7) // 8, "big")
        data = (bytes([0xC0 + len(data)]) if len(data) <= 55 else bytes([0xF7 + len(digits)]) + digits) + data
    return data


def test_a_proof_of_nested_lists_takes_no_memory():
    """The library copies the rest at each level: 200 kB became gigabytes where the recursion limit was raised."""
    data = b"\1" + nest(200_000)
    tracemalloc.start()
    try:
        assert refuse(lambda: EvmCodec(MAINNET).decode_proof(data)) == "bad_rlp"
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_proof_has_one_encoding():
    codec = EvmCodec(MAINNET)
    proof = verifier.Proof(VAULT, 0, (b"a" * 40,), (b"b" * 40,))
    data = codec.encode_proof(proof)
    assert codec.decode_proof(data) == proof
    assert refuse(lambda: codec.decode_proof(data + b"\0")) == "bad_rlp"
    short = b"\1" + encode_rlp([VAULT, b"", [], []])
    assert refuse(lambda: codec.decode_proof(short)) == "malformed"


# ---- anchors and settings of others -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"name": [1]},
        {"name": {}},
        {"name": 5},
        {"name": "mainnet"},
        {"epochs": ["-1"] + ["0"] * 6},
        {"epochs": ["0"] + ["-1"] * 6},
        {"epochs": []},
        {"epochs": ["9" * 5_000] * 7},
        {"blob_schedule": [["1", 1]]},
        {"blob_schedule": [[-1, 1]]},
        {"blob_schedule": [[[1], 1]]},
        {"blob_schedule": [1]},
        {"slots_per_epoch": [1]},
        {"committee_size": True},
        {"genesis_time": "1"},
        {"versions": 5},
    ],
)
def test_settings_of_a_stranger_are_read_or_refused_never_a_crash(change):
    good = json.loads(encode_settings(LightClientConfig(DEVNET)))
    assert decode_settings(encode_canonical(good).decode()).schedule == DEVNET
    bad = {"network": good["network"] | change}
    assert refuse(lambda: decode_settings(encode_canonical(bad).decode())) in {"bad_config", "size"}


@pytest.mark.parametrize(
    "chain", ["eip155:" + "1" * 5_000, "eip155:" + "9" * 19, "eip155:٣", "eip155:+1", "eip155:1_0"]
)
def test_the_number_of_a_chain_is_judged_before_it_is_read(chain):
    settings = encode_settings(LightClientConfig(DEVNET))
    build_rules("eip155:31337", get_evm_account(VAULT), b"\1" * 32, settings)
    assert refuse(lambda: build_rules(chain, get_evm_account(VAULT), b"\1" * 32, settings)) == "bad_config"


@pytest.mark.parametrize(
    ("number", "network"),
    [(1, "sepolia"), (1, "gnosis"), (11155111, "mainnet"), (100, "mainnet"), (31337, "mainnet"), (1, None)],
)
def test_a_chain_is_never_proven_by_the_committee_of_another(number, network):
    """A test network's headers under the name of the main one would make its play money real."""

    def build(number, network):
        settings = encode_settings(LightClientConfig(DEVNET)) if network is None else f'{{"network":"{network}"}}'
        return build_rules(f"eip155:{number}", get_evm_account(VAULT), b"\1" * 32, settings)

    for right in ((1, "mainnet"), (11155111, "sepolia"), (100, "gnosis"), (31337, None)):
        assert build(*right).vault_id
    assert refuse(lambda: build(number, network)) == "bad_config"


@pytest.mark.parametrize(
    "change",
    [
        {"trusting_period_s": 31 * DAY_S},
        {"max_checkpoint_age_s": 31 * DAY_S},
        {"max_checkpoint_age_s": 0},
        {"trusting_period_s": -1},
        {"max_clock_drift_s": 61},
        {"max_clock_drift_s": -1},
    ],
)
def test_no_setting_trusts_for_ever_or_takes_headers_from_the_future_f2_f8_f13(change):
    LightClientConfig(MAINNET, trusting_period_s=30 * DAY_S, max_checkpoint_age_s=30 * DAY_S, max_clock_drift_s=60)
    assert refuse(lambda: LightClientConfig(MAINNET, **change)) == "bad_config"


# ---- archives ---------------------------------------------------------------------------------------------------------


def test_an_archive_that_proves_two_headers_at_one_height_is_a_conflict():
    """The second would take the place of the first, and a cut could name it with the head that was proven under the other."""
    forge, liar = Forge(), Forge(salt=b"liar")
    bootstrap = forge.make_bootstrap(START)
    settings = encode_settings(LightClientConfig(forge.schedule))
    root = compute_header_root(bootstrap.header.beacon)
    anchor = Anchor("eip155:31337", "evm", get_evm_account(VAULT), root, settings)
    codec, now = EvmCodec(forge.schedule), forge.get_time(START + 60)

    def make(kind, claim, header):
        execution = header.execution
        encoded = codec.encode_bootstrap(claim) if kind == "bootstrap" else codec.encode_update(claim)
        fields = (execution.block_number, execution.block_hash, execution.timestamp)
        return ArchivedHeader(anchor.chain, kind, *fields, encoded)

    def replay(*headers):
        records = [ArchiveStart(now, (anchor,)), *headers, ArchiveEnd(1 + len(headers))]
        return Replay(make_judge, compute_plan).run(enumerate(records, 1))

    updates = [forge.make_update(START + 24, START + 8), forge.make_update(START + 40, START + 24)]
    steps = [make("update", update, update.finalized) for update in updates]
    forged = liar.make_update(START + 25, START + 8)
    first = make("bootstrap", bootstrap, bootstrap.header)
    assert replay(first, *steps, steps[0]).chains[0].headers == 4, "the same header twice is no contradiction"
    assert refuse(lambda: replay(first, *steps, make("update", forged, forged.finalized)), Conflict) == "two_headers"


def make_judge(anchor: Anchor) -> Judge:
    rules = build_rules_of(anchor.family, anchor.chain, anchor.vault_account, anchor.checkpoint, anchor.settings)
    return Judge(rules.vault_id, rules.limits, rules.verifier, rules.codec)


# ---- what held: rules at their edges ----------------------------------------------------------------------------------


@cache
def get_forge(fork: Fork) -> Forge:
    epochs = tuple(0 if known <= fork else 2**64 - 1 for known in Fork)
    return Forge(replace(build_devnet(genesis_time=1_700_000_000, genesis_validators_root=bytes(32), epochs=epochs)))


def verify(forge, trusted, update, at=None, **config):
    rules = verifier.EvmRules("eip155:31337", VAULT, b"\1" * 32, LightClientConfig(forge.schedule, **config))
    return EvmVerifier(rules).verify_update(
        trusted, update, forge.get_time(update.signature_slot if at is None else at)
    )


def test_a_branch_of_electra_proves_nothing_to_a_client_of_deneb_and_the_other_way_round():
    for signed, judged in ((Fork.ELECTRA, Fork.DENEB), (Fork.DENEB, Fork.ELECTRA)):
        forge, other = get_forge(signed), get_forge(judged)
        update = forge.make_update(START + 24, START + 8)
        assert verify(forge, forge.make_trusted(START), update)
        resigned = other.sign(update)
        assert refuse(lambda o=other, u=resigned: verify(o, o.make_trusted(START), u)) == "bad_finality"
        longer = replace(resigned, finality_branch=(bytes(32), *resigned.finality_branch))
        assert refuse(lambda o=other, u=longer: verify(o, o.make_trusted(START), u)) == "bad_finality"


@pytest.mark.parametrize("signed_by", [0, 1, 3, 4])
def test_the_committee_of_no_other_period_signs(signed_by):
    forge = Forge()
    trusted = forge.make_trusted(START, knows_next=True)
    update = forge.make_update(START + 24, START + 8)
    assert verify(forge, trusted, update)
    foreign = forge.sign(update, period=signed_by)
    assert refuse(lambda: verify(forge, trusted, foreign)) == "bad_signature"


def test_a_next_committee_without_finality_is_not_taken():
    forge = Forge()
    trusted = forge.make_trusted(START)
    after = verify(forge, trusted, forge.make_update(START + 24))
    assert after.next_committee is None
    assert after.finalized == trusted.finalized
    assert verify(forge, trusted, forge.make_update(START + 24, START + 8)).next_committee is not None


def test_members_who_left_long_ago_cannot_freeze_a_chain_f8():
    forge, liar = Forge(), Forge(salt=b"liar")
    trusted = verify(forge, forge.make_trusted(START), forge.make_update(START + 24, START + 8))
    double = liar.make_update(START + 25, START + 8)
    rules = verifier.EvmRules("eip155:31337", VAULT, b"\1" * 32, LightClientConfig(forge.schedule))
    expiry = forge.get_time(START + 8) + 14 * DAY_S
    assert refuse(lambda: EvmVerifier(rules).verify_update(trusted, double, expiry - 1), Conflict) == "equivocation"
    assert refuse(lambda: EvmVerifier(rules).verify_update(trusted, double, expiry)) == "expired"


@pytest.mark.parametrize(("participants", "is_enough"), [(341, False), (342, True)])
def test_two_thirds_of_512_are_342(participants, is_enough):
    forge = Forge(DEVNET_512)
    update = forge.make_update(START + 24, START + 8, participants=participants)
    if is_enough:
        assert verify(forge, forge.make_trusted(START), update).finalized == update.finalized
    else:
        assert refuse(lambda: verify(forge, forge.make_trusted(START), update)) == "participation"


def test_slots_at_the_end_of_u64_are_refused_and_overflow_nothing():
    forge = Forge()
    trusted = forge.make_trusted(START)
    good = forge.make_update(START + 24, START + 8)
    for slot in (2**64 - 1, 2**63, 2**32):
        beacon = replace(good.attested.beacon, slot=slot)
        for update in (
            replace(good, signature_slot=slot),
            replace(good, attested=replace(good.attested, beacon=beacon)),
            replace(good, attested=replace(good.attested, beacon=beacon), signature_slot=2**64 - 1),
        ):
            assert refuse(lambda u=update: verify(forge, trusted, u, at=good.signature_slot)) in {
                "period_ahead",
                "slots",
            }


def test_a_header_signed_within_the_drift_is_taken_and_one_second_later_is_not():
    forge = Forge()
    trusted, update = forge.make_trusted(START), forge.make_update(START + 24, START + 8)
    rules = verifier.EvmRules("eip155:31337", VAULT, b"\1" * 32, LightClientConfig(forge.schedule))
    signed_at = forge.get_time(update.signature_slot)
    assert EvmVerifier(rules).verify_update(trusted, update, signed_at - 10)
    assert refuse(lambda: EvmVerifier(rules).verify_update(trusted, update, signed_at - 11)) == "future"


# ---- fuzzing ----------------------------------------------------------------------------------------------------------

JUNK = (
    None, True, False, 0, -1, 1, 7, 2**64 - 1, 2**64, 2**256, 1.5, "", "0x", "0x0", "0x1", "-1", "1", "\ud800", "0x\ud800", "٣",
    "0x" + "00" * 32, "0x" + "ff" * 32, "0x" + "00" * 48, "0x" + "ff" * 200, str(2**64 - 1), "9" * 78, [], {}, [[]], [{}], {"data": 1},
    {"result": {}}, ["0x"] * 70, "altair", "fulu", "gloas", [None] * 3,
)  # fmt: skip


def verify_refusal(error: RelayerError) -> None:
    """A refusal has a stable word and a text with bytes."""
    assert error.reason
    assert str(error).encode()


def list_places(value, place=()):
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from list_places(item, (*place, key))


def change_json(value, chooser: random.Random):
    """Change one place of a JSON value: junk, a digit, a missing or doubled part, parts that change places, wrappings."""
    place = chooser.choice(list(list_places(value)))
    if not place:
        return chooser.choice([{"result": value}, {"data": value}, [value], [], {}, None, value])
    at = value
    for key in place[:-1]:
        at = at[key]
    key, old = place[-1], at[place[-1]]
    kind = chooser.randrange(7)
    if kind <= 1 and isinstance(old, str) and len(old) > 2:
        digit = chooser.randrange(2, len(old))
        at[key] = old[:digit] + chooser.choice("0123456789abcdef") + old[digit + 1 :]
    elif kind == 2:
        del at[key]
    elif kind == 3 and isinstance(at, list):
        at.insert(chooser.randrange(len(at) + 1), copy.deepcopy(old))
    elif kind == 4:
        other = chooser.choice(list(at) if isinstance(at, dict) else range(len(at)))
        at[key], at[other] = at[other], at[key]
    elif kind == 5 and isinstance(old, str):
        at[key] = old[: chooser.randrange(len(old) + 1)]
    else:
        at[key] = copy.deepcopy(chooser.choice(JUNK))
    return value


async def fuzz_answers(harness, seed: int, rounds: int) -> int:
    """Walk the road over one endpoint whose answers are changed now and then; returns how often the end was reached."""
    honest_points, honest = await walk(harness.chain, harness.now(), harness.start)
    chooser, reached = random.Random(seed), 0

    def change(_, value):
        for _ in range(chooser.choice((0, 0, 0, 0, 1, 1, 2))):
            value = change_json(value, chooser)
        return value

    chain = make_changed_chain(harness, change)
    chain.reader._endpoints.pop(harness.get_source(1))
    for _ in range(rounds):
        try:
            points, collected = await walk(chain, harness.now(), harness.start)
        except RelayerError as error:
            verify_refusal(error)
            continue
        reached += 1
        assert set(points) <= set(honest_points) or points[-1] in honest_points
        assert collected.proven.height in {point.height for point in honest_points}
        if collected.proven.height == honest.proven.height:
            assert replace(collected.proven, proof_digest=b"") == replace(honest.proven, proof_digest=b"")
        bodies = [(fact.sequence, fact.body, fact.head) for fact in honest.facts]
        assert [(fact.sequence, fact.body, fact.head) for fact in collected.facts] == bodies[: len(collected.facts)]
        assert (collected.head.sequence, collected.head.head) == (len(collected.facts), collected.proven.head)
    return reached


async def test_changed_answers_never_become_another_fact(story):
    assert await fuzz_answers(story, 1, 150) > 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 28))
async def test_changed_answers_never_become_another_fact_for_long(story, seed):
    assert await fuzz_answers(story, seed, 5_000) > 100


def change_bytes(data: bytes, chooser: random.Random) -> bytes:
    """Flip, cut, double, delete or move some bytes."""
    at = chooser.randrange(len(data))
    size = chooser.choice((1, 1, 2, 8, 32, 33))
    match chooser.randrange(7):
        case 0 | 1 | 2:
            return data[:at] + bytes([data[at] ^ 1 << chooser.randrange(8)]) + data[at + 1 :]
        case 3:
            return data[:at] + data[at + size :]
        case 4:
            return data[:at] + data[at : at + size] + data[at:]
        case 5:
            return data[:at] + chooser.randbytes(size) + data[at + size :]
        case _:
            return data[:at] if chooser.randrange(2) else data + data[:size]


async def fuzz_records(harness, seed: int, rounds: int) -> None:
    """Change recorded bootstraps, updates, states and proofs, decode them and judge them."""
    chooser, now, chain = random.Random(seed), harness.now(), harness.chain
    codec, judge = chain.codec, chain.verifier
    claim, trusted, _ = await base.bootstrap(chain, now)
    states = [trusted, *(after for _, after in (await base.advance(chain, trusted, now)).steps)]
    updates = [update for update, _ in (await base.advance(chain, trusted, now)).steps]
    collected = await base.collect(chain, states[-1], harness.start, 0)
    head, proof = collected.head, collected.proof

    def judge_proof(changed):
        lie = replace(head, head=chooser.choice((head.head, chooser.randbytes(32), harness.start.head, bytes(32))))
        proven = judge.verify_head(states[-1], lie, changed)
        assert (proven.head, lie.head) == (head.head, head.head)

    def change_nodes(proof):
        name = chooser.choice(("account_nodes", "storage_nodes"))
        nodes = list(getattr(proof, name))
        at = chooser.randrange(len(nodes))
        match chooser.randrange(5):
            case 0:
                del nodes[at]
            case 1:
                nodes.insert(chooser.randrange(len(nodes) + 1), nodes[at])
            case 2:
                nodes[at] = change_bytes(nodes[at], chooser)
            case 3:
                nodes = list(proof.account_nodes + proof.storage_nodes)
            case _:
                nodes.reverse()
        return replace(proof, **{name: tuple(nodes)})

    def fuzz_one(kind):
        if kind == 0:
            data = change_bytes(codec.encode_bootstrap(claim), chooser)
            changed = codec.decode_bootstrap(data)
            assert codec.encode_bootstrap(changed) == data
            assert judge.verify_bootstrap(changed, now) == trusted
        elif kind == 1:
            at = chooser.randrange(len(updates))
            data = change_bytes(codec.encode_update(updates[at]), chooser)
            changed = codec.decode_update(data)
            assert codec.encode_update(changed) == data
            after = judge.verify_update(states[at], changed, now)
            # an update's signature slot is not signed; a part that is left out is not believed
            assert after.finalized == states[at + 1].finalized
            assert after.current_committee == states[at + 1].current_committee
            assert after.next_committee in (states[at + 1].next_committee, states[at].next_committee)
        elif kind == 2:
            data = change_bytes(codec.encode_trusted(chooser.choice(states)), chooser)
            assert codec.encode_trusted(codec.decode_trusted(data)) == data
        elif kind == 3:
            judge_proof(codec.decode_proof(change_bytes(codec.encode_proof(proof), chooser)))
        else:
            judge_proof(change_nodes(proof))

    for i in range(rounds):
        try:
            fuzz_one(i % 5)
        except (Rejected, Conflict) as error:
            verify_refusal(error)


async def test_changed_records_never_prove_another_value(story):
    await fuzz_records(story, 2, 600)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30, 38))
async def test_changed_records_never_prove_another_value_for_long(story, seed):
    await fuzz_records(story, seed, 50_000)


async def make_proof(harness):
    """A proof file of the first deposit, its anchor and the time it is judged at."""
    now, chain, network = harness.now(), harness.chain, harness.network
    settings = encode_settings(LightClientConfig(network.schedule))
    anchor = Anchor(chain.chain_id, "evm", get_evm_account(harness.vault), harness.checkpoint, settings)
    claim, trusted, _ = await base.bootstrap(chain, now)
    point = chain.verifier.get_point(trusted)
    bootstrap, updates = ProofStep(point.time, chain.codec.encode_bootstrap(claim)), []
    for update, after in (await base.advance(chain, trusted, now)).steps:
        trusted, point = after, chain.verifier.get_point(after)
        updates.append(ProofStep(point.time, chain.codec.encode_update(update)))
    collected = await base.collect(chain, trusted, harness.start, 0)
    return make_proof_file(
        anchor,
        make_judge(anchor),
        bootstrap=bootstrap,
        updates=updates,
        point=point,
        head=collected.head,
        proof=chain.codec.encode_proof(collected.proof),
        facts=collected.facts,
        previous_head=harness.start.head,
        now=now,
    )


async def fuzz_files(harness, seed: int, rounds: int) -> None:
    """Change a proof file, as bytes and as a document, and judge it under the checker's own anchor and under the file's."""
    chooser = random.Random(seed)
    proof = await make_proof(harness)
    data, judge = encode_proof_file(proof), make_judge(proof.anchor)
    honest = [fact.commitment for fact in (await walk(harness.chain, harness.now(), harness.start))[1].facts]
    for i in range(rounds):
        if i % 3 == 0:
            changed = change_bytes(data, chooser)
        else:
            try:
                changed = encode_canonical(change_json(json.loads(data), chooser))
            except Rejected:
                continue  # junk that has no canonical form
        try:
            decoded = decode_proof_file(changed)
            if i % 2:
                make_judge(decoded.anchor)
            verified = verify_proof(decoded, judge, harness.now())
        except (Rejected, Conflict) as error:
            verify_refusal(error)
            continue
        fact = verified.fact
        assert fact.commitment == honest[fact.sequence - 1]
        assert verified.head.head == proof.head


async def test_a_changed_proof_file_proves_the_same_fact_or_none(story):
    await fuzz_files(story, 3, 400)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40, 44))
async def test_a_changed_proof_file_proves_the_same_fact_or_none_for_long(story, seed):
    await fuzz_files(story, seed, 10_000)
