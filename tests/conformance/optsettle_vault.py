"""What running vectors of optsettle on a vault has in common, whatever the family of the vault.

A family is a `Runner`: its vault's recv_cases and creation_cases, and a `VaultTrace` that does the steps of a history and reads the
final state. Cases that were made for another family or another vault are signed anew with the same keys and the same flaws, as the
README of the vectors says (4).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from messages import bodies as b
from messages.digests import SECP256K1_N, compute_packet_digest, sign_digest
from messages.errors import Rejected
from messages.ids import HOUSE, INSURANCE
from messages.packet import Packet, Payload, compute_commitment
from tests.conformance.case import Case

Json = Any

KIND = "optsettle"
RICH = 2**120  # callers hold what they deposit
EPOCHS = range(4)  # of which a flawed certificate may be
HOLDERS = {"HOUSE": HOUSE, "INSURANCE": INSURANCE}
UNORDERED = ("series", "dues", "denoms", "pause_used")


# ---- discovery --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runner:
    """How the vectors are run on the vault of one family."""

    family: str
    place: str  # where it runs, in the names of cases
    trace: type[VaultTrace]
    run_recv: Callable[[Json, Sequence[bytes], Json], None]  # setup, keys of the operators, case
    run_creation: Callable[[Json, Json], None]  # setup, case
    takes_foreign: bool = True  # whether cases that were made for another family are run
    is_judged_alike: Callable[[Json], bool] = lambda _: True  # whether a recv_case means the same on this vault

    def run_trace(self, record: Json, trace: Json) -> None:
        """Run every step of a trace and compare the final state; AssertionError names what differs."""
        self.trace(record, trace).run()

    def discover_traces(self, folder: Path) -> Iterator[Case]:
        """Yield one case per trace of the family in the files below ``folder``."""
        for name, record in _read_files(folder, "traces"):
            for trace in record["traces"]:
                if trace["family"] == self.family:
                    yield Case(KIND, f"{name} {trace['id']}{self.place}", partial(self.run_trace, record, trace))

    def discover_recv(self, folder: Path) -> Iterator[Case]:
        """Yield one case per recv_case and creation_case in the files below ``folder``."""
        for name, record in _read_files(folder, "recv_setup"):
            setup = record["recv_setup"]
            if setup["family"] != self.family and not self.takes_foreign:
                continue
            keys = [bytes.fromhex(o["private_key"]) for o in record.get("operators", {}).values()]
            for i, case in enumerate(record.get("recv_cases", [])):
                if self.is_judged_alike(case):
                    label = f"{name} recv_cases[{i}] {case['why']}{self.place}"
                    yield Case(KIND, label, partial(self.run_recv, setup, keys, case))
            for i, case in enumerate(record.get("creation_cases", [])):
                yield Case(KIND, f"{name} creation_cases[{i}]{self.place}", partial(self.run_creation, setup, case))


def _read_files(folder: Path, section: str) -> Iterator[tuple[str, Json]]:
    """Yield (file name, content) of every JSON object below ``folder`` that has ``section``."""
    for path in sorted(folder.rglob("*.json")):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and section in record:
            yield path.name, record


# ---- recv_cases and creation_cases ------------------------------------------------------------------------------------


def get_creation(setup: Json, caps: Mapping[bytes, Sequence[int]]) -> dict[str, Any]:
    """Return what a vault of a recv_setup or creation_case is created with, as every world takes it."""
    return {
        "operators": [bytes.fromhex(o) for o in setup["operators"]],
        "threshold": setup["threshold"],
        "treasurer": bytes.fromhex(setup["treasurer"]),
        "caps": caps,
        "delay": setup["delay"],
        "time": setup["time"],
    }


def read_caps(caps: Json) -> dict[bytes, list[int]]:
    """Return the caps of a creation_case."""
    return {bytes.fromhex(asset): [int(n) for n in numbers] for asset, numbers in caps.items()}


def make_packet(client: str, given: Json, old_client: str = "") -> Packet:
    """Return the packet of a recv step: what is not named has its right value (README of the vectors, 3).

    ``old_client`` is the client that the case was written for, if another: its forms become those of ``client``.
    """

    def get(name: str, right: str) -> str:
        text: str = given.get(name, right)
        if old_client:
            for form in (str, str.upper, lambda t: t[:-1]):
                text = text.replace(form(old_client), form(client))
        return text

    payload = Payload(
        get("source_port", b.PORT),
        get("destination_port", b.PORT),
        get("version", b.VERSION),
        get("encoding", b.ENCODING),
        bytes.fromhex(given["value"]),
    )
    return Packet(
        given["sequence"],
        get("source_client", client),
        get("destination_client", b.CLEARING_CLIENT),
        given["timeout"],
        (payload,) * given.get("payload_count", 1),
    )


def decode_wide(value: bytes) -> object:
    """Return the body of a value within the limits of the widest family; None where no vault takes it."""
    try:
        return b.decode_inbox_body(value, b.WIDEST_LIMITS)
    except Rejected:
        return None


def is_long(identity: bytes) -> bool:
    """Tell whether an id is above 20 bytes: an address on some families, none on others."""
    return any(identity[:12]) and identity not in (HOUSE, INSURANCE)


# ---- signing anew -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Statement:
    """What a certificate of a case may have been signed for, rightly or not: epoch and number beside the packet's own."""

    epoch: int
    sequence: int

    def sign(self, key: bytes, vault_id: bytes, packet: Packet) -> bytes:
        return sign_digest(key, compute_packet_digest(vault_id, self.epoch, self.sequence, compute_commitment(packet)))


def sign_anew(
    signatures: Sequence[bytes], keys: Sequence[bytes], old_id: bytes, old: Packet, new_id: bytes, new: Packet
) -> list[bytes]:
    """Return the signatures of a case for another vault."""
    if (old_id, old) == (new_id, new) or not new.payloads:  # what has no payload has no commitment
        return list(signatures)
    statements = [_Statement(epoch, s) for epoch in EPOCHS for s in {old.sequence, 1}]
    made = [(st.sign(key, old_id, old), st.sign(key, new_id, new)) for key in keys for st in statements]
    return [_translate_signature(signature, made) for signature in signatures]


def _translate_signature(signature: bytes, made: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the signature for the new vault with the flaw that ``signature`` has for the old one.

    ``made``: (right signature for the old vault, for the new one) of every key and statement. A signature near to none of them
    was made by nobody or for something else, and says as little about the new vault.
    """
    for old, new in made:
        for is_high in (False, True):
            before, after = (_flip(old), _flip(new)) if is_high else (old, new)
            if sum(x != y for x, y in zip(before[:64], signature[:64], strict=False)) > 1 or len(signature) < 64:
                continue
            changed = bytes(x ^ y ^ z for x, y, z in zip(before[:64], signature[:64], after[:64], strict=True))
            v = bytes(
                (given - x + y) % 256 for given, x, y in zip(signature[64:65], before[64:], after[64:], strict=False)
            )
            return changed + v + signature[65:]
    return signature


def _flip(signature: bytes) -> bytes:
    """Return the other form of a signature: n - s with the other v."""
    s = SECP256K1_N - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


# ---- traces -----------------------------------------------------------------------------------------------------------


class Names(dict[bytes, str]):
    """Names of ids; what has none is called by its hex."""

    def __missing__(self, key: bytes) -> str:
        return key.hex()


@dataclass(frozen=True)
class Offer:
    """An offer as every vault keeps it; ids are bytes."""

    maker: bytes
    side: int
    series: bytes
    asset: bytes
    quantity: int
    left: int
    premium_per_contract: int
    valid_until: int
    is_cancelled: bool


@dataclass(frozen=True)
class Trade:
    """A trade that waits for its decision, as every vault keeps it."""

    trade_id: bytes
    quantity: int
    cost: int
    number: int  # of its packet


class VaultTrace(ABC):
    """One trace: names of the vectors on a vault of its own."""

    family: ClassVar[str]
    has_own_head: ClassVar[bool] = False
    """Whether the vault stands elsewhere than the vectors' own, so that heads are not theirs."""
    world: Any

    def __init__(self, record: Json, trace: Json) -> None:
        family = record["families"][self.family]
        self.steps, self.final, setup = trace["steps"], trace["final"], trace["setup"]
        self.accounts = {name: bytes.fromhex(a["id"]) for name, a in family["accounts"].items()}
        self.assets = {name: bytes.fromhex(a) for name, a in family["assets"].items()}
        self.series = {name: bytes.fromhex(s["id"]) for name, s in record["series"].items()}
        self.dues = {name: bytes.fromhex(d) for name, d in record["dues"].items()}
        self.kinds = {**self.series, **self.dues}
        self.definitions = {
            name: {k: v for k, v in definition.items() if k != "id"} for name, definition in record["series"].items()
        }
        self.operators = {name: bytes.fromhex(o["address"]) for name, o in record["operators"].items()}
        self.ids = {**HOLDERS, **self.accounts, **self.assets, **self.kinds}
        self.trade_keys: set[tuple[bytes, int, int]] = set()
        creation = {
            "operators": [self.operators[o] for o in setup["operators"]],
            "threshold": setup["threshold"],
            "treasurer": self.accounts["treasurer"],
            "caps": {self.assets[a]: [int(n) for n in numbers] for a, numbers in setup["caps"].items()},
            "delay": setup["delay"],
            "time": setup["time"],
        }
        self.make_world(record, family, creation)

    # ---- what a family does its own way

    @abstractmethod
    def make_world(self, record: Json, family: Json, creation: dict[str, Any]) -> None:
        """Set ``world``: the vault with what the steps need around it."""

    @abstractmethod
    def run_step(self, step: Json) -> None:
        """Do one step and compare what came of it."""

    @abstractmethod
    def read_final(self) -> Json:
        """Return the state of the vault in the words of the vectors: everything that it shows."""

    @abstractmethod
    def get_offer(self, number: int) -> Offer:
        """Return an offer that was made."""

    @abstractmethod
    def get_trade(self, taker: bytes, offer: int, nonce: int) -> Trade | None:
        """Return a trade; None if it does not wait."""

    # ---- the same for all

    def run(self) -> None:
        """Run every step and compare the final state; AssertionError names what differs."""
        for i, step in enumerate(self.steps):
            try:
                self.run_step(step)
            except AssertionError as error:
                raise AssertionError(f"step {i} {step['call']} by {step['by']}: {error}") from error
        got, expected = self._sort(self.read_final()), self._sort(self.final)
        assert got.keys() == expected.keys(), got.keys() ^ expected.keys()
        for key, value in expected.items():
            assert got[key] == value, f"final {key}: {got[key]}, expected {value}"

    def _sort(self, record: Json) -> Json:
        """Return the final state with its unordered lists sorted, and without a head that is the vault's own."""
        kept = {k: v for k, v in record.items() if not (self.has_own_head and k == "outbox_head")}
        return {k: sorted(v) if k in UNORDERED else v for k, v in kept.items()}

    def get_id(self, name: str) -> bytes:
        """Return the id that has a name, or that is written in hex."""
        return self.ids[name] if name in self.ids else bytes.fromhex(name)

    def get_taker(self, step: Json) -> bytes:
        """Return for whom a step takes or asks."""
        return HOUSE if step["args"].get("for_house") else self.get_id(step["by"])

    def note_take(self, step: Json) -> None:
        """Remember the key of a trade that was made."""
        if step["call"] == "take":
            self.trade_keys.add((self.get_taker(step), step["args"]["offer"], step["args"]["nonce"]))

    def compare_outcome(self, step: Json, out: Any, head: bytes) -> None:
        """Check that a step that was done was to be done, with this packet, head and value."""
        assert "revert" not in step, f"accepted, expected revert {step.get('revert')}"
        self.note_take(step)
        assert (out.out.hex() if out.out is not None else None) == step["out"]
        assert head.hex() == step["head"]
        value = out.value.hex() if isinstance(out.value, bytes) else out.value
        assert value == step["value"], f"returned {value}, expected {step['value']}"

    def get_names(self) -> Names:
        """Return the names of ids."""
        return Names({v: k for k, v in self.ids.items()})

    def name_operators(self, operators: Sequence[bytes]) -> list[str]:
        """Return the names of operators."""
        names = Names({v: k for k, v in self.operators.items()})
        return [names[o] for o in operators]

    def get_holders(self) -> dict[str, bytes]:
        """Return every account of the final state: those with a name, and those that it calls by their ids."""
        holders = {**HOLDERS, **self.accounts}
        for table in ("free", "claimable", "position"):
            holders |= {a: bytes.fromhex(a) for a in self.final[table] if a not in holders}
        return holders

    def read_offers(self, names: Mapping[bytes, str], count: int) -> Json:
        """Return the offers that are open."""
        offers: Json = {}
        for number in range(1, count + 1):
            offer = self.get_offer(number)
            if offer.is_cancelled or not offer.left:
                continue
            offers[str(number)] = {
                "maker": names[offer.maker],
                "side": offer.side,
                "series": names[offer.series],
                "asset": names[offer.asset],
                "quantity": str(offer.quantity),
                "left": str(offer.left),
                "premium_per_contract": str(offer.premium_per_contract),
                "valid_until": offer.valid_until,
            }
        return offers

    def read_trades(self, names: Mapping[bytes, str]) -> Json:
        """Return the trades that wait."""
        trades: Json = {}
        for taker, number, nonce in self.trade_keys:
            trade = self.get_trade(taker, number, nonce)
            if trade is None:
                continue
            offer = self.get_offer(number)
            buyer, seller = (offer.maker, taker) if offer.side == 0 else (taker, offer.maker)
            # an id that follows from a head has the vectors' own for a name where the vault's head is another
            trades[names[trade.trade_id]] = {
                "taker": names[taker],
                "offer": number,
                "nonce": nonce,
                "buyer": names[buyer],
                "seller": names[seller],
                "series": names[offer.series],
                "asset": names[offer.asset],
                "quantity": str(trade.quantity),
                "cost": str(trade.cost),
                "valid_until": offer.valid_until,
                "number": trade.number,
            }
        return trades


def drop_zeros(table: Mapping[str, Mapping[str, int]]) -> Json:
    """Return a table of amounts as the vectors write it: without what is zero."""
    kept = {a: {c: str(n) for c, n in row.items() if n} for a, row in table.items()}
    return {a: row for a, row in kept.items() if row}
