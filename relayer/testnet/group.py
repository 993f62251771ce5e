"""Two chains, vaults, a broker and signed prices on this machine for operators who bring their own keys, and a user who pays in.

`relayer testnet up --operator op1 ...` plays everybody but the operators: it deploys vaults for the addresses in their key files (which it
does not open), gives their gas accounts ether, writes the parameters and prices they agree on, and leaves the operators to people. The user
and the treasurer are development accounts whose keys are public: nothing of worth is here.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from chains.evm.codec import (
    compute_evm_vault_id,
    encode_approve,
    encode_call,
    encode_claim,
    encode_deposit,
    encode_link,
    encode_list_series,
    encode_mint,
    encode_request_withdrawal,
    encode_token_args,
    encode_vault_args,
)
from contracts.evm import get_artifact
from messages.bodies import SeriesDefinition
from messages.canonical import encode_canonical
from messages.digests import compute_link_digest, get_address, sign_digest
from messages.documents import (
    Amount,
    AssetParameters,
    CapParameters,
    ClassParameters,
    FamilyParameters,
    LiquidationParameters,
    ModelParameter,
    Parameters,
    UnderlyingParameters,
    VaultParameters,
    compute_digest,
    to_object,
)
from messages.errors import Rejected, Unavailable
from messages.ids import HOUSE, INSURANCE, encode_name, get_evm_account
from relayer.commands.keys import read_key_file
from relayer.demo.market import Line, Reporters, compute_asset_underlying
from relayer.demo.market import Path as PricePath
from relayer.render import Answer, format_amount
from relayer.rules.margin.srm import MAIN_NET
from relayer.testnet.broker import Broker, start_broker
from relayer.testnet.door import Door, get_faucet_key
from relayer.testnet.nodes import Beacon, SidecarSizes, start_anvil, start_sidecar
from relayer.testnet.processes import LOOPBACK, Group, get_start_time
from relayer.toml_writer import encode_parameters

CHAIN_NUMBERS = (31337, 31338)
STATE_FILE = "testnet.json"
GROUP_FILE = "group.json"
VARIABLES = "group.env"
PRICES = "prices.jsonl"
MIN_OPERATORS, MAX_OPERATORS = 4, 20
DECIMALS = 6
UNIT = 10**DECIMALS
HOUSE_CASH, INSURANCE_CASH = 400_000 * UNIT, 20_000 * UNIT
CAP_PER_DAY = 20_000_000 * UNIT
DELAY_S = 60
PATIENCE_S = 15
TIMEOUT_S = 600
MINUTE_S = 60
DAY_S = 86_400
YEAR_S = 365 * DAY_S
EXPIRY_DAYS = 30
SPOT_E8 = 2_000 * 10**8
VOLATILITY_PPM = 650_000
FINALITY_TIMEOUT_S = 180.0
READY_TIMEOUT_S = 420.0
STOP_TIMEOUT_S = 60.0
USER, PORTFOLIO = 1, 2
"""Development accounts (`nodes.MNEMONIC`): who pays in, and whose signature owns the portfolio over both chains. 0 pays for everything."""
MAX_STATE_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """An operator as the group's files name it. address: 20 bytes. gas: addresses by chain number."""

    name: str
    address: bytes
    gas: Mapping[int, bytes]


@dataclass(frozen=True)
class Place:
    """One chain with its vault and token (20-byte addresses)."""

    number: int
    url: str
    vault: bytes
    token: bytes

    @property
    def chain(self) -> str:
        """CAIP-2."""
        return f"eip155:{self.number}"

    @property
    def asset(self) -> bytes:
        """The token as an asset, 32 bytes."""
        return get_evm_account(self.token)


class _Stopped(Exception):
    """Somebody asked to stop."""


# ---- members ------------------------------------------------------------------------------------------------------------


def read_members(folders: Sequence[Path]) -> tuple[Member, ...]:
    """Names and addresses from operators' folders: ``keys/operator.json`` and ``keys/gas-NUMBER.json`` in each; nothing is opened.

    Raises:
        Rejected: ``usage`` (fewer than 4 or more than 20, two of one name or key), ``key_file`` (missing, or names no address).
    """
    if not MIN_OPERATORS <= len(folders) <= MAX_OPERATORS:
        raise Rejected(
            "a group has 4 to 20 operators: --operator names the folder of each", got=len(folders), reason="usage"
        )
    members = []
    for folder in folders:
        keys = folder / "keys"
        members.append(
            Member(
                folder.resolve().name,
                _read_address(keys / "operator.json"),
                {n: _read_address(keys / f"gas-{n}.json") for n in CHAIN_NUMBERS},
            )
        )
    if len({m.name for m in members}) < len(members) or len({m.address for m in members}) < len(members):
        raise Rejected("two operators have one name or one key", got=[m.name for m in members], reason="usage")
    return tuple(members)


def _read_address(path: Path) -> bytes:
    address = str(read_key_file(path).get("address", "")).removeprefix("0x")
    try:
        found = bytes.fromhex(address)
    except ValueError:
        found = b""
    if len(found) != 20:
        raise Rejected(f"{path} names no address: relayer keys new and import write one", reason="key_file")
    return found


# ---- up -----------------------------------------------------------------------------------------------------------------


def run_group(folder: Path, operators: Sequence[Path], slots_per_epoch: int = 8) -> int:
    """Start everything, tell how to go on, keep prices coming until SIGTERM or Ctrl-C, stop everything; the exit code.

    Raises:
        Rejected, Unavailable: what is missing, or what did not start.
    """
    members = read_members(operators)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Rejected(f"{folder} is not empty: name a new folder", reason="usage")
    state = folder / STATE_FILE
    state.write_text(json.dumps({"pid": os.getpid(), "started": get_start_time(os.getpid())}))
    try:
        with _stop_on_signals(), Group(folder / "processes") as group:
            prices = _start(group, folder, members, slots_per_epoch)
            while True:
                group.verify_running()
                prices.write(int(time.time()))
                time.sleep(1.0)
    except _Stopped:
        _say("stopped on request; every process has ended")
        return 0
    finally:
        state.unlink(missing_ok=True)


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        # once is enough: what follows is the orderly end
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        raise _Stopped

    old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _start(group: Group, folder: Path, members: Sequence[Member], slots_per_epoch: int) -> _Prices:
    sizes = SidecarSizes(slots_per_epoch=slots_per_epoch)
    nodes = {n: start_anvil(group, f"anvil-{n}", n) for n in CHAIN_NUMBERS}
    beacons = {n: start_sidecar(group, f"sidecar-{n}", nodes[n], sizes) for n in CHAIN_NUMBERS}
    _say("two chains run, each with a consensus sidecar")
    doors = {n: Door(nodes[n].url, n, get_faucet_key(), b"") for n in CHAIN_NUMBERS}
    expiry = (int(time.time()) // DAY_S + EXPIRY_DAYS) * DAY_S
    created = [_deploy(doors[n], members, expiry) for n in CHAIN_NUMBERS]
    places = [place for place, _, _ in created]
    now = int(time.time())
    prices = _Prices(folder / PRICES, now, places, expiry)
    parameters = make_parameters(created, prices.reporters.addresses, now)
    (folder / "parameters.toml").write_text(
        encode_parameters(parameters, comment="What the operators of this testnet agree on. Amounts in base units.")
    )
    prices.write(now)
    _say("tokens and vaults are deployed, house, insurance and operators' gas accounts are funded")
    passwords = {m.name: secrets.token_urlsafe(24) for m in members}
    broker = start_broker(group, {m.address.hex(): passwords[m.name] for m in members})
    _write_passwords(folder / "broker", passwords)
    heights = {place.number: height for place, height, _ in created}
    checkpoints = {n: beacons[n].wait_for_finalized(heights[n], FINALITY_TIMEOUT_S)[0] for n in CHAIN_NUMBERS}
    for n in CHAIN_NUMBERS:
        (folder / f"{n}.settings.json").write_text(beacons[n].settings + "\n")
    (folder / VARIABLES).write_text(_make_variables(places, beacons, checkpoints, heights, broker))
    _write_whole(
        folder / GROUP_FILE,
        json.dumps(
            {
                "chains": [
                    {"number": p.number, "url": p.url, "vault": p.vault.hex(), "token": p.token.hex()} for p in places
                ],
                "parameters_digest": "0x" + compute_digest(parameters).hex(),
            }
        ),
    )
    _say(f"the operators agree on {folder}/parameters.toml, digest 0x{compute_digest(parameters).hex()}")
    _say(f"each gets its broker password from {folder}/broker/ and what `relayer init` asks from {folder}/{VARIABLES}")
    _say(f"Ready. `relayer testnet down --folder {folder}` or Ctrl-C stops everything.")
    return prices


def make_series(expiry: int) -> SeriesDefinition:
    """What is traded here: a call in dollars. A vault that lists nothing of a class can owe nothing in it, so nothing could move there."""
    return SeriesDefinition(
        underlying=encode_name("ETH"),
        expiry=expiry,
        strike_e8=SPOT_E8,
        right=1,
        quote_class=encode_name("USDC"),
        multiplier_e8=10**8,
        price_source=encode_name("ETH/USD index"),
        twap_seconds=30 * MINUTE_S,
    )


def _deploy(door: Door, members: Sequence[Member], expiry: int) -> tuple[Place, int, VaultParameters]:
    """Token, vault, money for house, insurance and gas, the user's link, a series: the place, its first block, its parameters."""
    faucet = get_faucet_key()
    treasurer = get_evm_account(get_address(faucet))
    operators = tuple(sorted(m.address for m in members))
    threshold = len(operators) * 2 // 3 + 1
    door.fund(*(m.gas[door.chain_id] for m in members))
    token, _ = door.deploy(faucet, get_artifact("erc20").bytecode + encode_token_args("Test Dollar", "USDC", DECIMALS))
    asset = get_evm_account(token)
    caps = [(asset, CAP_PER_DAY // 4, CAP_PER_DAY // 2, CAP_PER_DAY)]
    args = encode_vault_args(operators, threshold, treasurer, DELAY_S, caps)
    vault, receipt = door.deploy(faucet, get_artifact("vault").bytecode + args)
    _, created_at = door.get_block(hex(receipt.block_number))
    place = Place(door.chain_id, door.url, vault, token)
    for account, amount in ((HOUSE, HOUSE_CASH), (INSURANCE, INSURANCE_CASH)):
        pay_in(door, place, faucet, amount, account)
    _link(door, place, get_faucet_key(USER))
    door.act(faucet, vault, encode_list_series(make_series(expiry)))
    return (
        place,
        receipt.block_number,
        VaultParameters(
            chain=place.chain,
            family="evm",
            account=get_evm_account(vault),
            operators=operators,
            threshold=threshold,
            treasurer=treasurer,
            delay_s=DELAY_S,
            created_at=created_at,
            caps=tuple(CapParameters(a, Amount(p), Amount(h), Amount(d)) for a, p, h, d in caps),
            inventory_limit=Amount(2_000_000 * UNIT),
        ),
    )


def pay_in(door: Door, place: Place, key: bytes, amount: int, account: bytes) -> bytes:
    """Mint base units to a key's own address, let the vault take them and deposit them for an account; the transaction's hash."""
    door.act(get_faucet_key(), place.token, encode_mint(get_address(key), amount))
    door.act(key, place.token, encode_approve(place.vault, amount))
    return door.act(key, place.vault, encode_deposit(place.asset, amount, account)).transaction


def _link(door: Door, place: Place, key: bytes) -> None:
    """Let the portfolio of `PORTFOLIO` spend over this account: one account over both chains."""
    owner = get_faucet_key(PORTFOLIO)
    portfolio = get_evm_account(get_address(owner))
    _, now = door.get_block()
    until = now + YEAR_S
    vault_id = compute_evm_vault_id(place.number, place.vault)
    digest = compute_link_digest(vault_id, get_evm_account(get_address(key)), portfolio, until)
    door.act(key, place.vault, encode_link(portfolio, until, sign_digest(owner, digest)))


def make_parameters(
    created: Sequence[tuple[Place, int, VaultParameters]],
    reporters: Sequence[bytes],
    effective: int,
) -> Parameters:
    """What a group agrees on: its vaults, one dollar token each, the price reporters, short times. ``effective``: unix seconds."""
    quote_class = encode_name("USDC")
    model = tuple(
        ModelParameter(f.name, str(getattr(MAIN_NET, f.name)))
        for f in sorted(dataclasses.fields(MAIN_NET), key=lambda f: f.name)
    )
    return Parameters(
        version=1,
        effective=effective,
        patience_s=PATIENCE_S,
        heartbeat_s=7 * DAY_S,
        price_signers=tuple(reporters),
        price_threshold=2,
        vaults=tuple(vault for _, _, vault in created),
        assets=tuple(
            AssetParameters(
                caip19=_get_caip19(place),
                vault_id=compute_evm_vault_id(place.number, place.vault),
                asset=place.asset,
                quote_class=quote_class,
                decimals=DECIMALS,
                price_source=encode_name("pegs"),
                peg_low_e8=Amount(98 * 10**6),
                peg_high_e8=Amount(102 * 10**6),
                haircut_ppm=0,
                stale_haircut_ppm_per_hour=10_000,
                lift_limit=Amount(1_000_000 * UNIT),
            )
            for place, _, _ in created
        ),
        classes=(ClassParameters(quote_class, DECIMALS, Amount(10 * UNIT), 0),),
        underlyings=(UnderlyingParameters(encode_name("ETH"), encode_name("ETH/USD index"), "srm", model),),
        families=(FamilyParameters("evm", TIMEOUT_S, 64, 256),),
        liquidation=LiquidationParameters(discount_ppm=50_000, step_ppm=700_000),
    )


def _get_caip19(place: Place) -> str:
    return f"{place.chain}/erc20:0x{place.token.hex()}"


class _Prices:
    """Signed reports of each whole minute, appended to a file: a quiet market, pegs at one."""

    def __init__(self, path: Path, now: int, places: Sequence[Place], expiry: int) -> None:
        self._path = path
        self._next = now // MINUTE_S * MINUTE_S
        start = self._next
        lines = [
            Line(encode_name("ETH/USD index"), encode_name("ETH"), PricePath("spot", start, SPOT_E8, 300)),
            *(
                Line(
                    encode_name("pegs"),
                    compute_asset_underlying(_get_caip19(place)),
                    PricePath(f"peg {place.number}", start, 10**8, 20),
                )
                for place in places
            ),
        ]
        self.reporters = Reporters(secrets.randbits(63), lines, VOLATILITY_PPM)
        self.reporters.watch_expiry(encode_name("ETH"), expiry)

    def write(self, now: int) -> None:
        """Append what is due."""
        while self._next <= now:
            signed = [*self.reporters.get_reports(self._next), *self.reporters.get_marks(self._next)]
            with self._path.open("ab") as file:
                file.write(b"".join(encode_canonical(to_object(s)) + b"\n" for s in signed))
            self._next += MINUTE_S


def _write_passwords(folder: Path, passwords: Mapping[str, str]) -> None:
    folder.mkdir(mode=0o700)
    for name, password in passwords.items():
        path = folder / f"{name}.password"
        path.touch(mode=0o600)
        path.write_text(password + "\n")


def _make_variables(
    places: Sequence[Place],
    beacons: Mapping[int, Beacon],
    checkpoints: Mapping[int, bytes],
    heights: Mapping[int, int],
    broker: Broker,
) -> str:
    """Shell variables with what is another at each start: `. group.env`."""
    lines = ["# What `relayer init` asks; another at each start of the testnet.", f"BROKER={LOOPBACK}:{broker.port}"]
    for place in places:
        n = place.number
        lines += [
            f"ENDPOINT_{n}={place.url},{beacons[n].url}",
            f"CHECKPOINT_{n}=0x{checkpoints[n].hex()}",
            f"HEIGHT_{n}={heights[n]}",
        ]
    return "\n".join(lines) + "\n"


def _write_whole(path: Path, text: str) -> None:
    """So that nobody reads half of it."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


# ---- in the background --------------------------------------------------------------------------------------------------


def start_in_background(command: Sequence[str], folder: Path) -> Answer:
    """Run a `testnet up` apart from this process and return once it is ready; its words go to FOLDER.log.

    Raises:
        Unavailable: it ended, or does not become ready; reason "not_started", with its last lines.
    """
    log = folder.with_name(folder.name + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        child = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, "-m", "relayer.cli", *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    deadline = time.monotonic() + READY_TIMEOUT_S
    try:
        while "Ready." not in (text := log.read_text(errors="replace")):
            if child.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(
                    f"the testnet did not start: {' | '.join(text.strip().splitlines()[-6:])}", reason="not_started"
                )
            time.sleep(0.2)
    except BaseException:
        _end(child)
        raise
    data = {"schema": "relayer/testnet-up/1", "folder": str(folder), "log": str(log), "pid": child.pid}
    return Answer(data, [text.rstrip(), f"It runs in the background (process {child.pid}); it writes to {log}."])


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


# ---- the user -----------------------------------------------------------------------------------------------------------


def load_place(folder: Path, chain: str) -> Place:
    """A chain of a running group by its number or CAIP-2 name.

    Raises:
        Rejected: ``no_testnet`` (no group runs there), ``no_chain``.
    """
    file = folder / GROUP_FILE
    if not file.is_file() or not (folder / STATE_FILE).is_file() or file.stat().st_size > MAX_STATE_BYTES:
        raise Rejected(
            f"no testnet for a group of operators runs from {folder}: relayer testnet up --operator ... starts one",
            reason="no_testnet",
        )
    places = [
        Place(int(c["number"]), str(c["url"]), bytes.fromhex(c["vault"]), bytes.fromhex(c["token"]))
        for c in json.loads(file.read_text())["chains"]
    ]
    for place in places:
        if chain in (str(place.number), place.chain):
            return place
    raise Rejected(
        "there is no such chain here", got=chain, expected=", ".join(str(p.number) for p in places), reason="no_chain"
    )


def act_as_user(folder: Path, action: str, chain: str, whole: int) -> Answer:
    """One thing that the user does at a vault, in a block before this returns; finality and proof come later.

    Args:
        folder: of the group's testnet.
        action: deposit, withdraw (asks for it) or claim (takes what was granted).
        chain: number or CAIP-2 name.
        whole: dollars, for deposit and withdraw.

    Raises:
        Rejected: as `load_place`, or ``reverted`` with the vault's word. Unavailable: the node does not answer.
    """
    place = load_place(folder, chain)
    door = Door(place.url, place.number, get_faucet_key(), b"")
    key = get_faucet_key(USER)
    account = get_evm_account(get_address(key))
    before = _get_tokens(door, place, key)
    if action == "deposit":
        transaction = pay_in(door, place, key, whole * UNIT, account)
    elif action == "withdraw":
        transaction = door.act(key, place.vault, encode_request_withdrawal(place.asset, whole * UNIT)).transaction
    else:
        transaction = door.act(key, place.vault, encode_claim(account, place.asset)).transaction
    number = int.from_bytes(door.call(place.vault, encode_call("outbox_sequence()")), "big")
    tokens = _get_tokens(door, place, key)
    data: dict[str, Any] = {
        "schema": "relayer/testnet-user/1",
        "action": action,
        "chain": place.chain,
        "account": "0x" + account.hex(),
        "transaction": "0x" + transaction.hex(),
        "packet": f"{place.number}:{number}",
        "tokens": str(tokens),
        "decimals": DECIMALS,
    }
    words = {
        "deposit": f"The user paid {whole} USDC into the vault on {place.chain}.",
        "withdraw": f"The user asks for {whole} USDC on {place.chain}.",
        "claim": f"The user took {format_amount(tokens - before, DECIMALS)} USDC out of the vault on {place.chain}.",
    }[action]
    return Answer(
        data,
        [
            f"{words} The vault told it as packet {place.number}:{number}; it is a fact once its block is final and proven.",
            f"The user has {format_amount(tokens, DECIMALS)} USDC on {place.chain} outside of the vault.",
        ],
    )


def _get_tokens(door: Door, place: Place, key: bytes) -> int:
    return int.from_bytes(door.call(place.token, encode_call("balanceOf(address)", get_address(key))), "big")
