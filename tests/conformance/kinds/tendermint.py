"""CometBFT vectors: model-based steps, tables of the light client, real chains, IBC messages, encodings. Told apart by content.

* ``initial`` + ``input``: single steps with a verdict each (trust level 1/3, no clock drift, own ``now``).
* ``adjacent``, ``non_adjacent``, ``trust_level``, ``client``, ``detector``: tables of the light client's own tests.
* a list of headers with ``trusted_height``: a chain of skipping updates, all accepted.
* ``updates`` with a ``client_state``: IBC messages decoded; the messages themselves (``.b64`` beside it) must decode to the same.
* ``cases`` with ``trusted_height`` and ``target_height``: verdicts over the blocks in the folders beside the file.
* ``vote_sign_bytes``, ``header_hash``, ``rfc6962``: encodings.
* answers of the RPC: every header hashes to its commit's block id, every commit with a set beside it has more than two thirds.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from chains.cosmos import codec, evidence, hashing, protobuf
from chains.cosmos import light_client as lc
from chains.cosmos.types import (
    NANOSECONDS,
    ZERO_TIME_NS,
    BlockId,
    Commit,
    Flag,
    LightBlock,
    Trusted,
    ValidatorSet,
)
from chains.cosmos.validators import Votes
from messages.errors import Rejected
from tests.conformance.case import Case

FOREVER_NS = 10**12 * NANOSECONDS
ZERO32 = bytes(32)
# Which rule a case is about, by the words of its name: where the name says it, the refusal must be for that reason.
REASONS = [
    (r"same header", {"not_newer"}),
    (r"different chain id|wrong chain", {"wrong_chain"}),
    (r"time before trusted", {"time_order"}),
    (r"time from the future", {"future"}),
    (r"1/3 (new )?signed", {"too_few"}),
    (r"validators hash does not match|supplied validators inconsistent", {"wrong_validators"}),
    (r"expired", {"expired"}),
]


def discover(root: Path) -> Iterator[Case]:
    for path in sorted(p for p in root.rglob("*") if p.suffix in {".json", ".b64"}):
        name = str(path.relative_to(root))
        if path.suffix == ".b64":
            yield Case("tendermint", name, partial(run_message, path))
            continue
        cases = list(find_cases(path, json.loads(path.read_text())))
        for label, run in cases or [("", partial(fail, "no known layout of vectors"))]:
            yield Case("tendermint", f"{name}: {label}", run)


def fail(why: str) -> None:
    raise AssertionError(why)


def find_cases(path: Path, data: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    if isinstance(data, list):
        if data and "trusted_height" in data[0]:
            yield "skipping chain", partial(run_skipping_chain, data)
        return
    if "initial" in data and "input" in data:
        yield "steps", partial(run_steps, data)
    elif "updates" in data and "client_state" in data:
        yield "updates", partial(run_ibc_updates, data)
    elif isinstance(data.get("cases"), list) and data["cases"] and "target_height" in data["cases"][0]:
        for case in data["cases"]:
            label = f"{case['trusted_height']} -> {case['target_height']} at {case['trust_level']}"
            yield label, partial(run_scenario, path.parent, case)
    elif isinstance(data.get("result"), dict):
        yield from find_rpc_cases(path, data["result"])
    else:
        yield from find_table_cases(data)
        yield from find_encoding_cases(data)


# ---- reading ----------------------------------------------------------------------------------------------------------


def read_set(value: Any) -> Any:
    return None if value is None else value.get("validators") or []


def read_block(block: dict[str, Any], following: Any = None, *, sort: bool = False) -> LightBlock:
    """Return a light block of {signed_header, validator_set}; ``following``: list of the next validators, or None."""
    result = codec.parse_light_block(block["signed_header"], read_set(block["validator_set"]), following or None)
    if sort:
        nexts = result.next_validators
        result = replace(result, validators=sort_set(result.validators), next_validators=nexts and sort_set(nexts))
    return result


def sort_set(validators: ValidatorSet) -> ValidatorSet:
    members = sorted(validators.validators, key=lambda v: (-v.power, hashing.compute_address(v.key)))
    return ValidatorSet(tuple(members))


def read_level(text: str) -> tuple[int, int]:
    numerator, denominator = text.split("/")
    return int(numerator), int(denominator)


def read_time(text: str) -> int:
    return codec.parse_time(text, "now")


def make_config(chain_id: str, **changes: Any) -> lc.LightClientConfig:
    return lc.LightClientConfig(chain_id, **{"trusting_period_ns": FOREVER_NS, "max_clock_drift_ns": 0, **changes})


def judge(trusted: Trusted, read: Callable[[], LightBlock], now_ns: int, config: lc.LightClientConfig):
    """Return (verdict, reason, block) in the words of the vectors."""
    try:
        block = read()
        return lc.judge_update(trusted, block, now_ns, config).name, "", block
    except Rejected as error:
        return "INVALID", error.reason, None


def verify_round_trip(block: LightBlock) -> None:
    """Our own bytes of the objects read back as the same objects."""
    assert codec.decode_update(codec.encode_update(block)) == block
    trusted = lc.make_trusted(block)
    assert codec.decode_trusted(codec.encode_trusted(trusted)) == trusted


# ---- model-based single steps -----------------------------------------------------------------------------------------


def run_steps(data: dict[str, Any]) -> None:
    initial = data["initial"]
    header = codec.parse_header(initial["signed_header"]["header"])
    commit = codec.parse_commit(initial["signed_header"]["commit"])
    following = read_set(initial["next_validator_set"])
    nexts = sort_set(codec.parse_validators(following)) if following else None
    config = make_config(header.chain_id, trusting_period_ns=int(initial["trusting_period"]))
    trusted = lc.make_trusted(LightBlock(header, commit, ValidatorSet(()), nexts))
    for i, step in enumerate(data["input"]):
        block = step["block"]
        read = partial(read_block, block, read_set(block["next_validator_set"]), sort=True)
        verdict, reason, found = judge(trusted, read, read_time(step["now"]), config)
        assert verdict == step["verdict"], f"step {i}: got {verdict} ({reason}), expected {step['verdict']}"
        if verdict == "SUCCESS":
            verify_round_trip(found)
            trusted = lc.make_trusted(found)


# ---- tables -----------------------------------------------------------------------------------------------------------


def find_table_cases(data: dict[str, Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    defaults = data.get("defaults", {})
    for table in ("adjacent", "non_adjacent"):
        for case in data.get(table, []):
            yield f"{table} {case['name']}", partial(run_table, case, defaults)
    for case in data.get("trust_level", []):
        yield f"trust level {case['numerator']}/{case['denominator']}", partial(run_level, case)
    for case in data.get("client", []):
        yield f"client {case['mode']} {case['name']}", partial(run_client, case, defaults)
    for case in data.get("detector", []):
        yield f"detector {case['name']}", partial(run_detector, case, defaults)


def read_config(chain_id: str, case: dict[str, Any], defaults: dict[str, Any], period_ns: int) -> lc.LightClientConfig:
    level = case.get("trust_level", defaults.get("trust_level", "1/3"))
    drift = case.get("max_clock_drift_ns", defaults.get("max_clock_drift_ns", 0))
    return make_config(
        chain_id, trusting_period_ns=period_ns, max_clock_drift_ns=drift, trust_level=read_level(str(level))
    )


def run_table(case: dict[str, Any], defaults: dict[str, Any]) -> None:
    first = read_block(case["trusted"])
    config = read_config(first.header.chain_id, case, defaults, case["trusting_period_ns"])
    nexts = read_set(case.get("trusted_next_validator_set"))
    trusted = lc.make_trusted(first)
    if nexts is not None:
        trusted = replace(trusted, next_validators=codec.parse_validators(nexts))
    verdict, reason, _ = judge(trusted, partial(read_block, case["untrusted"]), read_time(case["now"]), config)
    expected = {"accept": "SUCCESS", "reject": "INVALID", "not_enough_trust": "NOT_ENOUGH_TRUST"}[case["expect"]]
    assert verdict == expected, f"got {verdict} ({reason}), expected {expected}"
    verify_reason(case["name"], verdict, reason)


def verify_reason(name: str, verdict: str, reason: str) -> None:
    if verdict == "INVALID":
        for words, reasons in REASONS:
            if re.search(words, name):
                assert reason in reasons, f"refused for {reason!r}, not for {reasons}"


def attempt(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return (result, "") or (None, reason)."""
    try:
        return call(), ""
    except Rejected as error:
        return None, error.reason


def run_level(case: dict[str, Any]) -> None:
    level = (case["numerator"], case["denominator"])
    _, reason = attempt(lambda: make_config("chain", trust_level=level))
    assert reason == ("" if case["valid"] else "bad_config")


def build_provider(blocks: list[dict[str, Any]], pool: dict[bytes, ValidatorSet]) -> Callable[[int], LightBlock]:
    """Return a source of blocks by height. Whatever set a header announces it can name, were it somebody else's (``pool``, by hash)."""
    by_height = {block["height"]: block for block in blocks}

    def fetch(height: int) -> LightBlock:
        entry = by_height.get(height)
        if entry is None or entry.get("signed_header") is None:
            raise Rejected("the provider has no such height", got=height, reason="no_block")
        block = read_block(entry)
        return replace(block, next_validators=pool.get(block.header.next_validators_hash))

    return fetch


def build_pool(*sources: list[dict[str, Any]]) -> dict[bytes, ValidatorSet]:
    sets = [
        codec.parse_validators(read_set(block["validator_set"]))
        for blocks in sources
        for block in blocks
        if block.get("validator_set")
    ]
    return {hashing.compute_validators_hash(members): members for members in sets}


def start_client(
    case: dict[str, Any], blocks: list[dict[str, Any]], pool: dict[bytes, ValidatorSet], defaults: dict[str, Any]
):
    options = case["trust_options"]
    config = read_config(case["chain_id"], options, defaults, options["period_ns"])
    fetch = build_provider(blocks, pool)
    now_ns = read_time(case["now"])
    trusted = lc.verify_bootstrap(
        fetch(options["height"]), options["height"], bytes.fromhex(options["hash"]), now_ns, config
    )
    return trusted, fetch, now_ns, config


def run_client(case: dict[str, Any], defaults: dict[str, Any]) -> None:
    pool = build_pool(case["provider"])
    started, reason = attempt(lambda: start_client(case, case["provider"], pool, defaults))
    assert (started is not None) == (case["expect_init"] == "ok"), reason
    if started is None:
        return
    trusted, fetch, now_ns, config = started
    path = lc.walk_every_block if case["mode"] == "sequential" else lc.walk
    steps, reason = attempt(lambda: lc.drive(path(trusted, case["verify_height"], now_ns, config), fetch))
    assert (steps is not None) == (case["expect_verify"] == "ok"), reason
    if steps is not None:
        assert steps[-1][1].height == case["verify_height"]


def run_detector(case: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Follow the primary, ask each witness; the evidence named must come out of one of the two ways to go."""
    witnesses = [w if isinstance(w, list) else w["provider"] for w in case["witnesses"]]
    pool = build_pool(case["primary"], *witnesses)
    trusted, fetch, now_ns, config = start_client(case, case["primary"], pool, defaults)
    outcomes = []
    for path in (lc.walk_every_block, lc.walk):
        try:
            steps = lc.drive(path(trusted, case["verify_height"], now_ns, config), fetch)
        except Rejected as error:
            outcomes.append(("unverified", error.reason))
            continue
        outcomes += [
            ask_witness(trusted, steps, build_provider(witness, pool), now_ns, config) for witness in witnesses
        ]
    results = [outcome[0] for outcome in outcomes]
    expected = case["expect"]
    if expected == "attack":
        named = case["evidence_against_primary"]
        assert "attack" in results, outcomes
        assert "ok" not in results, outcomes
        heights = [outcome[1:] for outcome in outcomes if outcome[0] == "attack"]
        kind = re.match(r"\w+", case["name"])
        assert any(
            height == named["conflicting_height"] and (kind is None or attack in {kind[0], "amnesia"})
            for height, _, attack in heights
        ), heights
        if "common_height" in named:  # for an equivocation the height itself is called common
            assert any(named["common_height"] in {common, height} for height, common, _ in heights), heights
    elif expected == "ok":
        assert set(results) == {"ok"}, outcomes
    else:
        assert "ok" not in results, outcomes
        assert "attack" not in results, outcomes


def ask_witness(
    trusted: Trusted,
    steps: lc.Steps,
    fetch: Callable[[int], LightBlock],
    now_ns: int,
    config: lc.LightClientConfig,
):
    path = evidence.watch_witness(trusted, steps, now_ns, config)
    try:
        height = next(path)
        while True:
            height = path.send(fetch(height))
    except StopIteration as end:
        found = end.value
    except Rejected as error:
        return ("error", error.reason)
    if found is None:
        return ("ok",)
    claim = found.evidence
    evidence.verify_misbehaviour(claim, found.common, now_ns, config, found.second_trusted)
    attack = evidence.classify_attack(claim.first, claim.second)
    if attack is not evidence.Attack.AMNESIA:
        assert evidence.get_byzantine(claim.first, claim.second, found.common)
    return ("attack", claim.first.header.height, found.common.height, attack.value)


# ---- real chains ------------------------------------------------------------------------------------------------------


def run_skipping_chain(entries: list[dict[str, Any]]) -> None:
    """Each header under the one it names; where that one is not in the file, under its announced set alone."""
    known: dict[int, LightBlock] = {}
    for i, entry in enumerate(entries):
        block = read_block(entry)
        config = make_config(block.header.chain_id)
        nexts = codec.parse_validators(read_set(entry["trusted_validators"]))
        height = int(entry["trusted_height"])
        if height in known:
            trusted = lc.make_trusted(known[height])
            assert lc.is_set_of(nexts, trusted.next_validators_hash)
            trusted = replace(trusted, next_validators=nexts)
        else:
            trusted = make_anchor(block.header.chain_id, height, block.header.time_ns - 1, nexts)
        verdict, reason, _ = judge(trusted, lambda block=block: block, block.header.time_ns + 1, config)
        assert verdict == "SUCCESS", f"{i}: {verdict} ({reason})"
        Votes(block).verify_all()
        verify_round_trip(block)
        known[block.header.height] = block


def make_anchor(chain_id: str, height: int, time_ns: int, nexts: ValidatorSet) -> Trusted:
    announced = hashing.compute_validators_hash(nexts)
    return Trusted(chain_id, height, time_ns, ZERO32, ZERO32, ZERO32, announced, nexts)


@lru_cache(maxsize=64)
def read_height(folder: Path, height: int) -> LightBlock:
    """Return the block in the folder named by a height: one file with all, or commit and pages of validators."""
    here = folder / str(height)
    whole = here / "signed_block.json"
    if whole.exists():
        result = json.loads(whole.read_text())["result"]
        return codec.parse_light_block(result, result["validator_set"]["validators"])
    signed = json.loads((here / "commit.json").read_text())["result"]["signed_header"]
    pages = sorted(here.glob("validators_*.json"), key=lambda p: int(p.stem.split("_")[1]))
    members = [v for page in pages for v in json.loads(page.read_text())["result"]["validators"]]
    return codec.parse_light_block(signed, members)


def run_scenario(folder: Path, case: dict[str, Any]) -> None:
    first, target = (read_height(folder, case[name]) for name in ("trusted_height", "target_height"))
    config = make_config(first.header.chain_id, trust_level=read_level(case["trust_level"]))
    trusted = lc.make_trusted(first)
    assert trusted.next_validators is not None
    verdict, reason, _ = judge(trusted, lambda: target, target.header.time_ns + 1, config)
    assert verdict == case["expect"], f"got {verdict} ({reason}), expected {case['expect']}"
    verify_round_trip(target)


def find_rpc_cases(path: Path, result: dict[str, Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    for i, meta in enumerate(result.get("block_metas") or []):
        yield f"meta {i}", partial(run_meta, meta)
    if "block" in result:
        yield "block", partial(run_rpc_block, result)
    if "signed_header" in result or {"header", "commit"} <= result.keys():
        yield "commit", partial(run_rpc_commit, path, result)
    if "validators" in result:
        yield "validators", partial(run_rpc_validators, path, result)
    for i, tx in enumerate(result.get("txs") or []):
        if isinstance(tx, dict) and "proof" in tx:
            yield f"tx {i}", partial(run_tx, tx)


def run_meta(meta: dict[str, Any]) -> None:
    header = codec.parse_header(meta["header"])
    assert hashing.compute_header_hash(header) == codec.parse_block_id(meta["block_id"]).hash
    assert protobuf.decode_header(protobuf.encode_header(header)) == header


def run_rpc_block(result: dict[str, Any]) -> None:
    block = result["block"]
    header = codec.parse_header(block["header"])
    assert hashing.compute_header_hash(header) == codec.parse_block_id(result["block_id"]).hash
    txs = [sha256(base64.b64decode(tx)).digest() for tx in block["data"]["txs"] or []]
    assert hashing.compute_merkle_root(txs) == header.data_hash
    last = codec.parse_commit(block["last_commit"])
    assert last.block_id == header.last_block_id
    votes = protobuf.decode_message(protobuf.encode_commit(last), protobuf._COMMIT)["signatures"]
    assert hashing.compute_merkle_root(votes) == header.last_commit_hash
    assert protobuf.decode_commit(protobuf.encode_commit(last)) == last


def run_rpc_commit(path: Path, result: dict[str, Any]) -> None:
    signed = result.get("signed_header", result)
    header, commit = codec.parse_header(signed["header"]), codec.parse_commit(signed["commit"])
    assert hashing.compute_header_hash(header) == commit.block_id.hash
    assert protobuf.decode_commit(protobuf.encode_commit(commit)) == commit
    members = read_set(result.get("validator_set"))
    if members is None:
        pages = sorted(path.parent.glob("validators*.json"), key=lambda p: (len(p.stem), p.stem))
        members = [v for page in pages for v in json.loads(page.read_text())["result"]["validators"]]
    if members:
        block = codec.parse_light_block(signed, members)
        config = make_config(header.chain_id)
        lc.verify_bootstrap(block, header.height, commit.block_id.hash, header.time_ns + 1, config)
        Votes(block).verify_all()
        verify_round_trip(block)


def run_rpc_validators(path: Path, result: dict[str, Any]) -> None:
    members = codec.parse_validators(result["validators"])
    assert len(members.validators) == int(result.get("count", len(members.validators)))
    assert protobuf.decode_validators(protobuf.encode_validators(members)) == members


def run_tx(tx: dict[str, Any]) -> None:
    data = base64.b64decode(tx["tx"])
    assert sha256(data).hexdigest() == tx["hash"].lower()
    proof = tx["proof"]["proof"]
    leaf = hashing.compute_merkle_root([sha256(data).digest()])
    assert leaf == base64.b64decode(proof["leaf_hash"])
    aunts = [base64.b64decode(aunt) for aunt in proof["aunts"]]
    root = climb(int(proof["index"]), int(proof["total"]), leaf, aunts)
    assert root.hex() == tx["proof"]["root_hash"].lower()


def climb(index: int, total: int, leaf: bytes, aunts: list[bytes]) -> bytes:
    """Return the root that a leaf and its aunts (lowest first) lead to, by the recursive definition of the tree."""
    if total == 1:
        assert not aunts
        return leaf
    half = 1 << (total - 1).bit_length() - 1
    if index < half:
        return sha256(b"\1" + climb(index, half, leaf, aunts[:-1]) + aunts[-1]).digest()
    return sha256(b"\1" + aunts[-1] + climb(index - half, total - half, leaf, aunts[:-1])).digest()


# ---- IBC messages -----------------------------------------------------------------------------------------------------


def run_ibc_updates(data: dict[str, Any]) -> None:
    state = data["client_state"]
    level = state["trust_level"]
    period_ns = read_duration(state["trusting_period"])
    config = make_config(
        state["chain_id"],
        trusting_period_ns=period_ns,
        max_clock_drift_ns=read_duration(state["max_clock_drift"]),
        trust_level=(int(level["numerator"]), int(level["denominator"])),
    )
    first = data["consensus_state"]
    time_ns = read_time(first["timestamp"])
    announced = bytes.fromhex(first["next_validators_hash"])
    trusted = Trusted(
        state["chain_id"], first["height"], time_ns, ZERO32, bytes.fromhex(first["root"]), ZERO32, announced
    )
    known = {trusted.height: trusted}
    for update in data["updates"]:
        block = read_block(update)
        height = update["trusted_height"]
        assert int(height["revision_number"]) == lc.get_revision(block.header.chain_id)
        trusted = known[int(height["revision_height"])]
        nexts = codec.parse_validators(read_set(update["trusted_validators"]))
        assert lc.is_set_of(nexts, trusted.next_validators_hash), "trusted validators are not those announced"
        trusted = replace(trusted, next_validators=nexts)
        after = lc.verify_update(trusted, block, block.header.time_ns + NANOSECONDS, config)
        Votes(block).verify_all()
        known[after.height] = after
        expired = trusted.time_ns + period_ns
        verdict, reason, _ = judge(trusted, lambda block=block: block, expired, config)
        assert (verdict, reason) == ("INVALID", "expired")


def read_duration(value: dict[str, Any]) -> int:
    return int(value["seconds"]) * NANOSECONDS + int(value["nanos"])


def read_any(data: bytes) -> tuple[str, bytes]:
    found = read_fields(data)
    return found[1][0].decode(), found[2][0]


def read_fields(data: bytes) -> dict[int, list[Any]]:
    """Return field number -> values, without a schema: for messages that are no part of the product."""
    found: dict[int, list[Any]] = {}
    at = 0
    while at < len(data):
        tag, at = protobuf.read_varint(data, at)
        value, at = protobuf.read_varint(data, at)
        if tag & 7 == 2:
            value, at = data[at : at + value], at + value
        found.setdefault(tag >> 3, []).append(value)
    return found


def run_message(path: Path) -> None:
    """Decode an IBC message and compare it with the decoded file beside it."""
    message = base64.b64decode(path.read_text())
    decoded = json.loads((path.parent / "decoded.json").read_text())
    anys = [read_any(part) for parts in read_fields(message).values() for part in parts if is_any(part)]
    assert anys, "no IBC object in the message"
    for url, body in anys:
        kind = url.rsplit(".", 1)[-1]
        if kind == "Header":
            run_header_message(body, decoded["updates"])
        elif kind == "ClientState":
            fields = read_fields(body)
            assert fields[1][0].decode() == decoded["client_state"]["chain_id"]
            level = read_fields(fields[2][0])
            expected = decoded["client_state"]["trust_level"]
            assert (level[1][0], level[2][0]) == (expected["numerator"], expected["denominator"])
        elif kind == "ConsensusState":
            fields = read_fields(body)
            expected = decoded["consensus_state"]
            assert protobuf.decode_timestamp(fields[1][0]) == read_time(expected["timestamp"])
            assert read_fields(fields[2][0])[1][0].hex() == expected["root"].lower()
            assert fields[3][0].hex() == expected["next_validators_hash"].lower()
        else:
            raise AssertionError(f"an unknown object {url}")


def is_any(part: Any) -> bool:
    return isinstance(part, bytes) and b"/ibc." in part[:12]


def run_header_message(body: bytes, updates: list[dict[str, Any]]) -> None:
    fields = read_fields(body)
    signed = read_fields(fields[1][0])
    header, commit = protobuf.decode_header(signed[1][0]), read_commit_message(signed[2][0])
    assert protobuf.encode_header(header) == signed[1][0]
    expected = next(u for u in updates if int(u["signed_header"]["header"]["height"]) == header.height)
    block = read_block(expected)
    assert (header, commit) == (block.header, block.commit)
    assert read_proto_set(fields[2][0]) == block.validators
    assert read_proto_set(fields[4][0]) == codec.parse_validators(read_set(expected["trusted_validators"]))
    assert read_fields(fields[3][0])[2][0] == int(expected["trusted_height"]["revision_height"])


def read_commit_message(data: bytes) -> Commit:
    """Return the commit of a relayer's message; some leave out the time of an absent vote, which the chain's own encoder writes."""
    fields = read_fields(data)
    votes = []
    for raw in fields[4]:
        if 3 not in read_fields(raw):
            assert raw == protobuf.encode_integer(1, Flag.ABSENT)
            raw += protobuf.encode_message(3, protobuf.encode_timestamp(ZERO_TIME_NS))  # noqa: PLW2901  completed
        votes.append(protobuf.encode_message(4, raw))
    head = data[: data.index(protobuf.encode_message(4, fields[4][0]))]
    commit = protobuf.decode_commit(head + b"".join(votes))
    assert protobuf.encode_commit(commit) == head + b"".join(votes)
    return commit


def read_proto_set(data: bytes) -> ValidatorSet:
    members = []
    for raw in read_fields(data)[1]:
        fields = read_fields(raw)
        leaf = protobuf.encode_message(1, fields[2][0]) + protobuf.encode_integer(2, fields[3][0])
        member = protobuf.decode_simple_validator(leaf)
        assert hashing.compute_address(member.key) == fields[1][0]
        members.append(member)
    return ValidatorSet(tuple(members))


# ---- encodings --------------------------------------------------------------------------------------------------------


def find_encoding_cases(data: dict[str, Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    for i, case in enumerate(data.get("vote_sign_bytes", [])):
        yield f"vote {i}", partial(run_vote, case)
    for i, case in enumerate(data.get("header_hash", [])):
        yield f"header {i}", partial(run_header, case)
    for name, root in data.get("rfc6962", {}).items():
        yield f"rfc6962 {name}", partial(run_tree, name, root)


def run_vote(case: dict[str, Any]) -> None:
    block_id = None if case["block_id"] is None else codec.parse_block_id(case["block_id"])
    if block_id == BlockId():
        block_id = None
    time_ns = read_time(case["timestamp"])
    got = hashing.encode_vote(case["chain_id"], case["type"], case["height"], case["round"], block_id, time_ns)
    assert got.hex() == case["sign_bytes"]


def run_header(case: dict[str, Any]) -> None:
    header = codec.parse_header(case["header"])
    assert hashing.compute_header_hash(header).hex() == case["hash"].lower()
    assert protobuf.decode_header(protobuf.encode_header(header)) == header


def run_tree(name: str, root: str) -> None:
    """Names say the tree: empty_tree, empty_leaf, leaf_<text>, node_<text>_<text> (of two hashes that are those texts)."""
    kind, _, rest = name.partition("_")
    if name == "empty_tree":
        got = hashing.compute_merkle_root([])
    elif kind == "leaf" or name == "empty_leaf":
        got = hashing.compute_merkle_root([b"" if name == "empty_leaf" else rest.encode()])
    else:
        left, right = rest.split("_")
        got = sha256(b"\1" + left.encode() + right.encode()).digest()
        leaves = [b"a", b"b"]
        inner = b"".join(hashing.compute_merkle_root([leaf]) for leaf in leaves)
        assert hashing.compute_merkle_root(leaves) == sha256(b"\1" + inner).digest()
    assert got.hex() == root.lower(), name
