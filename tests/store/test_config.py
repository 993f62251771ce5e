"""The operator's files: what is wrong is named, with what it should be (fault 26, incident B1)."""

from __future__ import annotations

import copy
import os
import random
import tomllib
from pathlib import Path

import pytest

from messages.documents import Amount, compute_digest
from messages.errors import Rejected, Unavailable
from messages.ids import encode_name
from relayer.config import decode_parameters, load_config, load_parameters, read_password
from relayer.feeds import FileFeed

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PARAMETERS = CONFIGS / "parameters.example.toml"


def write(folder, text):
    (folder / "parameters.example.toml").write_bytes(PARAMETERS.read_bytes())
    path = folder / "relayer.toml"
    path.write_text(text)
    return path


def get_error(path):
    with pytest.raises(Rejected) as caught:
        load_config(path)
    return str(caught.value)


def test_the_committed_example_is_right():
    config = load_config(CONFIGS / "example.toml")
    assert config.genesis_digest == compute_digest(config.parameters)
    assert config.store_path == CONFIGS / "node.db"
    assert config.chains[0].settings == '{"network":"sepolia"}'
    assert len(config.chains[0].endpoints) == 2
    assert config.parameters.classes[0].quote_class == encode_name("USDC")
    assert config.parameters.vaults[0].caps[0].per_packet == Amount(10**12)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "operator-1"', 'name = "operator 1"', ["name"]),
        ('name = "operator-1"', 'nme = "operator-1"', ["nme", "unknown key", "name", "required"]),
        ('store = "node.db"', 'store = "journal.db"', ["two files"]),
        ("port = 8883", "port = 88830", ["gossip.port", "65536"]),
        ("port = 8883", 'port = "8883"', ["gossip.port", "integer"]),
        ('kind = "mqtt"', 'kind = "smoke"', ["gossip.kind", "mqtt"]),
        ('host = "broker.example.org"\n', "", ["gossip", "host and port"]),
        ('ca_file = "broker-ca.pem"', 'cert_file = "x"', ["cert_file and key_file"]),
        ('vault = "0x5f', 'vault = "0x5F', ["vault", "lower-case"]),
        ('0x5fbdb2315678afecb367f032d93f642f64180aa3"\ncheck', "0x" + "0" * 40 + '"\ncheck', ["non-zero address"]),
        ("0" * 62 + "aa", "0" * 64, ["checkpoint", "non-zero"]),
        ("start_height = 0", "start_height = -1", ["start_height"]),
        ('family = "evm"', 'family = "moon"', ["family", "evm"]),
        ('chains."eip155:11155111"', 'chains."eip156:11155111"', ["eip155"]),
        ('chains."eip155:11155111"', 'chains."eip155:1"', ["different vaults"]),
        ('"file:gas.json"', '"file:operator.json"', ["operator key"]),
        ('submit_password = "file:gas.password"', "", ["submit_key and submit_password"]),
        ('"file:operator.json"', '"0x' + "11" * 32 + '"', ["operator.key"]),
        ('"file:operator.password"', '"hunter2"', ["operator.password"]),
        ('name = "provider"', 'name = "own node"', ["different names"]),
        ("https://execution.example.org", "http://127.0.0.1:8545", ["one source"]),
        ("https://execution.example.org", "ftp://x", ["execution"]),
        ('path = "prices.jsonl"', 'url = "https://x"', ["feeds.0", "kind file needs path"]),
        ('level = "info"', 'level = "loud"', ["log.level"]),
        ("port = 9464", "port = 0", ["metrics.port"]),
        ('settings = { network = "sepolia" }', "settings = 5", ["settings"]),
    ],
)
def test_a_wrong_key_is_named_with_what_it_should_be(tmp_path, old, new, words):
    text = (CONFIGS / "example.toml").read_text()
    assert old in text
    error = get_error(write(tmp_path, text.replace(old, new)))
    for word in words:
        assert word in error


def test_all_wrong_keys_are_told_at_once(tmp_path):
    text = (CONFIGS / "example.toml").read_text().replace("8883", "0").replace('"info"', '"loud"').replace("9464", "0")
    error = get_error(write(tmp_path, text))
    assert all(word in error for word in ("gossip.port", "log.level", "metrics.port"))


def test_a_missing_or_broken_file_is_told_as_such(tmp_path):
    assert "relayer init" in get_error(tmp_path / "none.toml")
    assert "is a folder" in get_error(tmp_path)
    assert "not TOML" in get_error(write(tmp_path, "a = = b"))
    assert "not TOML" in get_error(write(tmp_path, "a = " + "[" * 20_000))
    (tmp_path / "latin.toml").write_bytes(b'a = "\xff"')
    assert "not TOML" in get_error(tmp_path / "latin.toml")


def test_five_hundred_spoiled_configurations_are_refused_with_a_named_reason(tmp_path):
    """One leaf or key is removed, renamed or replaced by something of another type; no other exception ever comes out."""
    raw = tomllib.loads((CONFIGS / "example.toml").read_text())
    dice = random.Random(1)
    optional = {"submit_key", "submit_password", "feeds", "metrics", "log", "level", "ca_file", "password_file", "port"}
    refused = 0
    for _ in range(500):
        spoiled = copy.deepcopy(raw)
        table, key = dice.choice(_get_leaves(spoiled))
        how = dice.randrange(3)
        if how == 0:
            table[key + "_x"] = table.pop(key)
        elif how == 1:
            table[key] = dice.choice([None, [], {}, -1, 10**30, 0.5, True, "", "\0", "x" * 5000])
        else:
            if key in optional:
                continue
            del table[key]
        if table.get(key, 0) is None:
            del table[key]
            table[key + "_y"] = 1
        refused += _get_reason(write(tmp_path, _dump(spoiled))) in ("bad_config", "bad_toml", "no_file")
    assert refused > 400


def _get_reason(path):
    """Why a configuration is refused, "" where it is not: some changes make another right one."""
    try:
        load_config(path)
    except Rejected as error:
        return error.reason
    return ""


def _get_leaves(table):
    out = []
    for key, value in table.items():
        out.append((table, key))
        if isinstance(value, dict):
            out += _get_leaves(value)
        if isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    out += _get_leaves(item)
    return out


def _dump(value, root=True):
    """TOML of plain values, inline below the first level."""
    import json

    if root:
        return "\n".join(f"{json.dumps(k)} = {_dump(v, False)}" for k, v in value.items())
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_dump(v, False)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_dump(v, False) for v in value) + "]"
    return json.dumps(value)


# ---- parameters


def make_raw():
    return tomllib.loads(PARAMETERS.read_text())


def test_equal_parameters_have_equal_digests_and_one_change_another():
    first = compute_digest(load_parameters(PARAMETERS))
    raw = make_raw()
    raw["assets"][0]["lift_limit"] = int(raw["assets"][0]["lift_limit"])
    assert compute_digest(decode_parameters(raw)) == first
    raw["assets"][0]["lift_limit"] += 1
    assert compute_digest(decode_parameters(raw)) != first


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda r: r.update(extra=1), ["unknown key extra"]),
        (lambda r: r.pop("patience_s"), ["missing key patience_s"]),
        (lambda r: r["vaults"][0].update(threshold="3"), ["vaults[0].threshold", "an integer"]),
        (lambda r: r["vaults"][0]["operators"].append("0x" + "0" * 40), ["vaults[0].operators[4]", "non-zero address"]),
        (lambda r: r["vaults"][0].update(account="0x12"), ["vaults[0].account", "20 or 32 bytes"]),
        (lambda r: r["assets"][0].update(quote_class="a class with a name that is far too long"), ["quote_class"]),
        (lambda r: r["assets"][0].update(asset="USDC"), ["assets[0].asset"]),
        (lambda r: r["assets"][0].update(lift_limit="1e6"), ["lift_limit", "decimal string"]),
        (lambda r: r["assets"][0].update(haircut_ppm=True), ["haircut_ppm"]),
        (lambda r: r["classes"][0].update(minimum_notional=0.5), ["minimum_notional"]),
        (lambda r: r.update(vaults=[]), ["names no vault"]),
        (lambda r: r.update(vaults={}), ["vaults", "an array"]),
        (lambda r: r.update(liquidation=[]), ["liquidation", "a table"]),
        (lambda r: r.update(price_threshold=4), ["price_threshold"]),
        (lambda r: r.update(price_threshold=0), ["price signers"]),
        (lambda r: r.update(patience_s=0), ["patience_s"]),
    ],
)
def test_a_wrong_parameter_is_named_by_its_path(spoil, words):
    raw = make_raw()
    spoil(raw)
    with pytest.raises(Rejected) as caught:
        decode_parameters(raw)
    assert caught.value.reason == "bad_config"
    for word in words:
        assert word in str(caught.value)


def test_tiers_are_an_optional_table_that_is_checked_when_it_is_read():
    raw = make_raw()
    assert [tier.level for tier in decode_parameters(raw).tiers] == [2, 3]
    raw.pop("tiers")
    assert decode_parameters(raw).tiers == ()
    raw["tiers"] = [
        {
            "level": 3,
            "haircut_ppm": 20_000,
            "haircut_ppm_per_hour": 20_000,
            "weight_ppm": 50_000,
            "weight_ppm_per_hour": 100_000,
            "value_limit": "250000000000",
        }
    ]
    (tier,) = decode_parameters(raw).tiers
    assert (tier.level, tier.value_limit) == (3, 250_000_000_000)
    assert compute_digest(decode_parameters(raw)) != compute_digest(decode_parameters(make_raw()))
    raw["tiers"][0]["haircut_ppm"] = 2_000  # less than the default of tier 2
    with pytest.raises(Rejected) as caught:
        decode_parameters(raw)
    assert caught.value.reason == "bad_config"
    assert "haircut_ppm of tier 3" in str(caught.value)


def test_a_control_change_is_an_optional_list_of_bodies():
    raw = make_raw()
    raw["controls"] = [{"vault_id": "0x" + "11" * 32, "value": "0x" + "00" * 31 + "25"}]
    assert decode_parameters(raw).controls[0].value == bytes(31) + b"\x25"
    raw["controls"][0]["value"] = "0x1234"
    with pytest.raises(Rejected):
        decode_parameters(raw)


# ---- secrets and feeds


def test_a_password_comes_from_a_private_file_or_a_descriptor(tmp_path):
    base = tmp_path / "relayer.toml"
    secret = tmp_path / "password"
    secret.write_bytes(b"correct horse\n")
    secret.chmod(0o600)
    assert read_password("file:password", base).reveal() == b"correct horse"
    read, write_end = os.pipe()
    os.write(write_end, b"by pipe")
    os.close(write_end)
    assert read_password(f"fd:{read}", base).reveal() == b"by pipe"
    os.close(read)
    secret.chmod(0o644)
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "empty").chmod(0o600)
    for reference, reason in (("file:password", "file_mode"), ("file:none", "bad_reference"), ("fd:999", "bad_reference"),
                              ("file:empty", "bad_reference")):  # fmt: skip
        with pytest.raises(Rejected) as caught:
            read_password(reference, base)
        assert caught.value.reason == reason
        assert "horse" not in str(caught.value)


async def test_a_price_file_is_read_on_line_by_line(tmp_path):
    from messages.documents import encode_document
    from tests.builders import START, make_mark, make_report

    path = tmp_path / "prices.jsonl"
    feed = FileFeed(path)
    with pytest.raises(Unavailable):
        await feed.fetch(START)
    one, two, mark = make_report(START, 2000), make_report(START + 60, 2001), make_mark(START, START + 600, 2000)
    lines = [encode_document(x) + b"\n" for x in (one, mark, two)]
    path.write_bytes(lines[0] + lines[1] + lines[2][:40])
    assert await feed.fetch(START) == ([one], [mark])
    assert await feed.fetch(START) == ([], [])
    path.write_bytes(b"".join(lines))
    assert await feed.fetch(START) == ([two], [])
    with path.open("ab") as file:
        file.write(b'{"report":1}\n' + lines[0])
    with pytest.raises(Rejected) as caught:
        await feed.fetch(START)
    assert caught.value.source == "prices.jsonl"
    assert await feed.fetch(START) == ([], [])
