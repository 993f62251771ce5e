"""A Cosmos vault with its tokens on the chain of `cosmos_harness.py`, and the clearing that certifies packets for it.

The counterpart of `vault_world.py`: every state change goes through `CosmosWorld.send`, which checks what must hold for any
call: at most one outbox packet, its bytes canonical and its number next, the raw head in the store equal to the fold of all
packets so far, nothing moved by a failure.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from chains.cosmos.address import compute_chain_name
from chains.cosmos.wasm_vm import DEFAULT_GAS
from messages.bodies import ENCODING, PORT, VERSION
from messages.digests import compute_vault_id
from messages.ids import compute_denom_asset
from messages.outbox import compute_next_head
from messages.packet import Packet, Payload, compute_commitment
from tests.contracts.clearing import Clearing
from tests.contracts.cosmos_harness import (
    STRANGER,
    Chain,
    Funds,
    Result,
    Reverted,
    load_code,
    to_bech32,
)
from tests.contracts.vault_world import HOUSE, INSURANCE, Outcome

__all__ = ["DEPLOYER", "HOUSE", "INSURANCE", "CosmosWorld", "encode_call", "encode_recv"]

Json = Any
Caps = Mapping[bytes, Sequence[int]]

DEPLOYER = b"\xdd" * 20
VAULT = b"\x11" * 32  # where a vault stands if nobody says otherwise
RICH = 2**120  # what owners may spend by the vault
# numbers and texts that are such in JSON too
PLAIN = {"side", "offer", "number", "nonce", "valid_until", "denom"}


def encode_value(name: str, value: object) -> Json:
    """Return an argument in JSON: hex for bytes, a decimal string for an amount, else as it is."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, bool) or not isinstance(value, int) or name in PLAIN:
        return value
    return str(value)


def encode_call(name: str, args: Mapping[str, object]) -> Json:
    """Return the ExecuteMsg of a user call; ``definition`` is the mapping of vector files (decimal strings allowed)."""
    return {name: {key: encode_value(key, value) for key, value in args.items()}}


def encode_definition(definition: Mapping[str, object]) -> Json:
    """Return the JSON of a series definition; numbers may be given as ints or decimal strings, ids as bytes or hex."""
    out: dict[str, Json] = {}
    for key, value in definition.items():
        if key in ("strike_e8", "multiplier_e8"):
            out[key] = str(value)
        elif key in ("expiry", "right", "twap_seconds"):
            out[key] = int(str(value))
        else:
            out[key] = value.hex() if isinstance(value, bytes) else value
    return out


def encode_recv(packet: Packet, signatures: Sequence[bytes]) -> Json:
    """Return the ExecuteMsg of a delivery, of any packet."""
    payloads = [
        {
            "source_port": p.source_port,
            "destination_port": p.destination_port,
            "version": p.version,
            "encoding": p.encoding,
            "value": base64.b64encode(p.value).decode(),
        }
        for p in packet.payloads
    ]
    return {
        "recv": {
            "packet": {
                "sequence": packet.sequence,
                "source_client": packet.source_client,
                "destination_client": packet.destination_client,
                "timeout": packet.timeout_timestamp,
                "payloads": payloads,
            },
            "signatures": [s.hex() for s in signatures],
        }
    }


class CosmosWorld(Clearing):
    """One vault at a chosen account, cw20 tokens at chosen ids, bank coins by their denominations."""

    def __init__(
        self,
        operators: Sequence[bytes],
        threshold: int,
        treasurer: bytes,
        caps: Caps,
        delay: int = 86_400,
        time: int = 1_800_000_000,
        operator_keys: Sequence[bytes] = (),
        chain_id: str = "cosmoshub-4",
        at: bytes = VAULT,
        code: str = "vault",
    ) -> None:
        self.chain = Chain(chain_id, time)
        self.set_operators(operator_keys, threshold)
        self.time = time
        message = {
            "operators": [o.hex() for o in operators],
            "threshold": threshold,
            "treasurer": treasurer.hex(),
            "delay": delay,
            "caps": [
                {"asset": asset.hex(), "per_packet": str(p), "per_hour": str(h), "per_day": str(d)}
                for asset, (p, h, d) in caps.items()
            ],
        }
        self.address, self.created = self.chain.deploy(load_code(code), message, DEPLOYER, at)
        self.begin(compute_vault_id(compute_chain_name(chain_id), self.address.rjust(32, b"\0")))
        self.denoms: dict[bytes, str] = {}
        assert self.get_head() == self.vault_id

    # ---- tokens ----

    def deploy_token(self, asset: bytes, code: str = "cw20", **extra: Json) -> None:
        """Put a token contract at the address that ``asset`` is the id of."""
        message = {
            "name": "Token",
            "symbol": "TKN",
            "decimals": 6,
            "initial_balances": [],
            "mint": {"minter": to_bech32(DEPLOYER)},
            **extra,
        }
        self.chain.deploy(load_code(code), message, DEPLOYER, asset)

    def add_denom(self, denom: str) -> bytes:
        """Make a bank coin known to this harness (not to the vault); return its asset id."""
        asset = compute_denom_asset(denom)
        self.denoms[asset] = denom
        return asset

    def fund(self, asset: bytes, owner: bytes, amount: int) -> None:
        """Give ``owner`` tokens or coins, and let the vault pull the tokens."""
        if asset in self.denoms:
            self.chain.mint(owner, self.denoms[asset], amount)
            return
        mint = {"mint": {"recipient": to_bech32(owner), "amount": str(amount)}}
        allow = {"increase_allowance": {"spender": to_bech32(self.address), "amount": str(RICH)}}
        self.chain.execute(asset, mint, DEPLOYER)
        self.chain.execute(asset, allow, owner)

    def get_held(self, asset: bytes, owner: bytes | None = None) -> int:
        """Return what ``owner`` (default: the vault) holds of an asset, as the token or the bank says."""
        owner = self.address if owner is None else owner
        if asset in self.denoms:
            return self.chain.get_coins(owner, self.denoms[asset])
        return int(self.chain.query(asset, {"balance": {"address": to_bech32(owner)}})["balance"])

    # ---- calls ----

    def set_time(self, time: int) -> None:
        self.time = time
        self.chain.time = time

    def write(self, name: str, by: bytes, funds: Funds | None = None, **args: object) -> Outcome:
        """Send a user call; a deposit of a bank coin brings its coin along unless ``funds`` says otherwise."""
        if funds is None:
            asset, amount = args.get("asset"), args.get("amount")
            is_coin = name == "deposit" and isinstance(asset, bytes) and asset in self.denoms
            funds = [(self.denoms[asset], amount)] if is_coin and amount else []  # type: ignore[index,list-item]
        return self.send(encode_call(name, args), by, funds)

    def send(self, message: Json | bytes, by: bytes, funds: Funds = (), gas: int = DEFAULT_GAS) -> Outcome:
        before = dict(self.chain.stores[self.address].items())
        try:
            result = self.chain.execute(self.address, message, by, funds, gas)
        except Reverted:
            assert dict(self.chain.stores[self.address].items()) == before, "a failed call changed the vault"
            raise
        return self._read_outcome(result)

    def _read_outcome(self, result: Result) -> Outcome:
        ours = [e for e in result.events if e.contract == self.address]
        outs = [dict(e.attributes) for e in ours if e.kind == "wasm-optsettle_out"]
        ins = [dict(e.attributes) for e in ours if e.kind == "wasm-optsettle_in"]
        assert len(outs) <= 1, "more than one outbox packet"
        assert len(ins) <= 1, "more than one inbox packet"
        assert all(len(dict(e.attributes)) == len(e.attributes) for e in ours), "an attribute is there twice"
        keys = {"sequence", "timeout", "source_client", "destination_client", "value"}
        inbox = self._read_packet(ins[0], keys) if ins else None
        packet = None
        if outs:
            self.sequence += 1
            packet = self._read_packet(outs[0], {*keys, "head"})
            assert packet == self.make_outbox_packet(packet.payloads[0].value)
            self.head = compute_next_head(self.head, self.sequence, compute_commitment(packet))
            assert outs[0]["head"] == self.head.hex()
            self.packets.append(packet)
        assert self.get_head() == self.head
        value = json.loads(result.data) if result.data else None
        return Outcome(value, packet, inbox, (), result.gas, 0)

    @staticmethod
    def _read_packet(attributes: Mapping[str, str], keys: set[str]) -> Packet:
        assert set(attributes) == keys
        value = base64.b64decode(attributes["value"], validate=True)
        payload = Payload(PORT, PORT, VERSION, ENCODING, value)
        sequence, timeout = attributes["sequence"], attributes["timeout"]
        assert (sequence, timeout) == (str(int(sequence)), str(int(timeout))), "numbers have one form"
        clients = attributes["source_client"], attributes["destination_client"]
        return Packet(int(sequence), *clients, int(timeout), (payload,))

    def get_head(self) -> bytes:
        head = self.chain.stores[self.address].get(b"outbox_head")
        assert isinstance(head, bytes)
        return head

    def query(self, name: str, **args: object) -> Json:
        """Return the answer of a query; arguments as in `write`."""
        return self.chain.query(self.address, encode_call(name, args))

    def get_free(self, account: bytes, asset: bytes) -> int:
        return int(self.query("balance", account=account, asset=asset)["free"])

    def get_claimable(self, account: bytes, asset: bytes) -> int:
        return int(self.query("balance", account=account, asset=asset)["claimable"])

    # ---- the clearing ----

    def bring(self, packet: Packet, signatures: Sequence[bytes], by: bytes = STRANGER) -> Outcome:
        """Send recv and check what must hold for an accepted packet."""
        out = self.send(encode_recv(packet, signatures), by)
        self.verify_answered(packet, out.inbox, out.out)
        return out
