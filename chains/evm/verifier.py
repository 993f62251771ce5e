"""Binds one vault's configuration to the pure rules, and gives states, updates and proofs their bytes. No network, clock or disk.

`EvmVerifier` adds nothing to `light_client` and `proofs` but the operator's choices: network, checkpoint, participation floor, periods, vault.
They come from the configuration, never from what is verified (style.md 4, habit 15), and have one canonical text (`encode_settings`) that
also travels in exported proofs.

Bytes: SSZ with a version and the data format's fork in front for light-client objects, RLP for storage proofs. Decoders take only what
encoders give: they encode what they read again and compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from chains.base import Codec, Head, Point, Verifier
from chains.evm import light_client, proofs
from chains.evm.codec import OUTBOX_HEAD_SLOT, compute_evm_vault_id
from chains.evm.forks import NETWORKS, Fork, ForkSchedule, Preset, build_devnet
from chains.evm.light_client import LightClientConfig
from chains.evm.mpt import RlpItem, decode_rlp, encode_rlp
from chains.evm.ssz import (
    Container,
    OrAbsent,
    SszType,
    decode_light_client,
    encode_light_client,
    get_committee_type,
    get_header_type,
)
from chains.evm.types import Bootstrap, LightClientHeader, Proof, Trusted, Update
from messages.canonical import decode_canonical, decode_hex, encode_canonical, encode_hex
from messages.errors import Conflict, Rejected
from messages.ids import ChainId, get_evm_address
from messages.outbox import ProvenHead

ValueT = TypeVar("ValueT")

FORMAT_VERSION = 1
MAX_SETTINGS_BYTES = 8192
MAX_PROOF_BYTES = 1 << 20
MAX_NODES = 65
_UPDATE_NAMES = ("update", "finality_update")
_NETWORK_NUMBERS = {"mainnet": 1, "sepolia": 11155111, "gnosis": 100}
"""EIP-155 numbers of the built-in networks: a number and its network go together."""
_LIMIT_NAMES = ("max_checkpoint_age_s", "trusting_period_s", "max_clock_drift_s")


@dataclass(frozen=True)
class EvmRules:
    """What decides about claims of one vault: ``vault`` 20 bytes, ``checkpoint_root`` 32 bytes (a finalized beacon block)."""

    chain: str
    vault: bytes
    checkpoint_root: bytes
    config: LightClientConfig

    @property
    def chain_number(self) -> int:
        """The EIP-155 chain id."""
        return get_chain_number(self.chain)

    @property
    def vault_id(self) -> bytes:
        """The vault id (protocol.md 2)."""
        return compute_evm_vault_id(self.chain_number, self.vault)


def get_chain_number(chain: str) -> int:
    """The EIP-155 number in a CAIP-2 name; Rejected ("bad_config") for anything but eip155:<decimal>."""
    namespace, _, number = chain.partition(":")
    if (
        namespace != "eip155"
        or len(number) > 19
        or not number.isdecimal()
        or str(int(number)) != number
        or not 0 < int(number) < 2**63
    ):
        raise Rejected("not a chain of the Ethereum family", got=chain, expected="eip155:<number>", reason="bad_config")
    return int(number)


def build_rules(chain: str, vault_account: bytes, checkpoint_root: bytes, settings: str) -> EvmRules:
    """The rules of a vault: CAIP-2 chain, 32-byte account, checkpoint and settings text; Rejected ("bad_config", "bad_address")."""
    if len(checkpoint_root) != 32 or not any(checkpoint_root):
        raise Rejected("a checkpoint is 32 non-zero bytes", got=checkpoint_root, reason="bad_config")
    number = get_chain_number(chain)
    vault = get_evm_address(vault_account)
    if not any(vault):
        raise Rejected("the vault's address is zero", got=vault, reason="bad_config")
    config = decode_settings(settings)
    network = config.schedule.name
    if (number in _NETWORK_NUMBERS.values() or network in _NETWORK_NUMBERS) and _NETWORK_NUMBERS.get(network) != number:
        raise Rejected(
            "the consensus network is not this chain's: its headers would prove another chain's state",
            got=f"{chain} under {network}",
            reason="bad_config",
        )
    return EvmRules(chain, vault, checkpoint_root, config)


# ---- verifier ---------------------------------------------------------------------------------------------------------


class EvmVerifier(Verifier[Bootstrap, Trusted, Update, Proof]):
    """The rules of one vault. Reasons of refusals: see `light_client` and `proofs`."""

    def __init__(self, rules: EvmRules) -> None:
        self._rules = rules

    def verify_bootstrap(self, bootstrap: Bootstrap, now: int) -> Trusted:
        """See `light_client.verify_bootstrap`."""
        return light_client.verify_bootstrap(bootstrap, self._rules.checkpoint_root, self._rules.config, now)

    def verify_update(self, trusted: Trusted, update: Update, now: int) -> Trusted:
        """See `light_client.verify_update`; a signed contradiction is a Conflict also in an update that tells nothing newer.

        Not under an expired state: whoever buys the keys of members that left could stop a chain with it.
        """
        config = self._rules.config
        if light_client.is_finalized_conflict(trusted, update) and self.is_fresh(trusted, now):
            slot = config.schedule.get_slot(now + config.max_clock_drift_s)
            light_client.verify_statement(trusted, update, slot, config.schedule, config.floor)
            raise Conflict(
                "the committee finalized two headers at one slot",
                got=update.finalized and update.finalized.beacon.slot,
                expected="one",
                reason="equivocation",
            )
        return light_client.verify_update(trusted, update, now, self._rules.config)

    def verify_head(self, trusted: Trusted, head: Head, proof: Proof) -> ProvenHead:
        """See `proofs.verify_head`; the number in ``head`` is not proven here but by the fold."""
        return proofs.verify_head(
            trusted,
            head.head,
            proof,
            vault_id=self._rules.vault_id,
            chain=ChainId(self._rules.chain),
            vault_address=self._rules.vault,
            slot=OUTBOX_HEAD_SLOT,
        )

    def get_point(self, trusted: Trusted) -> Point:
        """Number, hash and timestamp of the finalized execution block; Rejected ("no_execution") before Capella."""
        execution = trusted.finalized.execution
        if execution is None:
            raise Rejected("the finalized header has no execution block", reason="no_execution")
        return Point(execution.block_number, execution.block_hash, execution.timestamp)

    def is_fresh(self, trusted: Trusted, now: int) -> bool:
        """Tell whether the finalized header is within the trusting period."""
        return not light_client.is_expired(trusted, now, self._rules.config)


# ---- bytes ------------------------------------------------------------------------------------------------------------


class EvmCodec(Codec[Bootstrap, Trusted, Update, Proof]):
    """Bytes of one network's objects. Decoders: Rejected ("malformed", "size", "bad_ssz", "bad_rlp", "unknown_fork")."""

    def __init__(self, schedule: ForkSchedule) -> None:
        self._schedule = schedule

    def encode_trusted(self, trusted: Trusted) -> bytes:
        """Version, forks of the two headers, SSZ."""
        forks = [self._get_fork(header) for header in (trusted.finalized, trusted.optimistic)]
        return bytes([FORMAT_VERSION, *forks]) + self._get_trusted_type(*forks).encode(trusted)

    def decode_trusted(self, data: bytes) -> Trusted:
        """The state of exactly these bytes."""
        finalized, optimistic, body = self._open(data, 2)
        trusted: Trusted = self._get_trusted_type(_get_fork(finalized), _get_fork(optimistic)).decode(body)
        return _verify_same(trusted, self.encode_trusted(trusted), data)

    def _get_trusted_type(self, finalized: Fork, optimistic: Fork) -> Container:
        committee = get_committee_type(self._schedule.preset.committee_size)
        fields: tuple[tuple[str, SszType], ...] = (
            ("finalized", get_header_type(finalized)),
            ("optimistic", get_header_type(optimistic)),
            ("current_committee", committee),
            ("next_committee", OrAbsent(committee, None)),
        )
        return Container(Trusted, fields)

    def encode_bootstrap(self, bootstrap: Bootstrap) -> bytes:
        """Version, fork, SSZ of LightClientBootstrap."""
        fork = self._get_fork(bootstrap.header)
        return bytes([FORMAT_VERSION, fork]) + encode_light_client("bootstrap", bootstrap, fork, self._schedule.preset)

    def decode_bootstrap(self, data: bytes) -> Bootstrap:
        """The bootstrap of exactly these bytes."""
        fork, body = self._open(data, 1)
        bootstrap: Bootstrap = decode_light_client("bootstrap", body, _get_fork(fork), self._schedule.preset)
        return _verify_same(bootstrap, self.encode_bootstrap(bootstrap), data)

    def encode_update(self, update: Update) -> bytes:
        """Version, fork, kind (0 full, 1 without a committee), SSZ of LightClientUpdate or LightClientFinalityUpdate."""
        kind = int(update.next_committee is None and not update.next_committee_branch)
        fork = self._get_fork(update.attested)
        body = encode_light_client(_UPDATE_NAMES[kind], update, fork, self._schedule.preset)
        return bytes([FORMAT_VERSION, fork, kind]) + body

    def decode_update(self, data: bytes) -> Update:
        """The update of exactly these bytes."""
        fork, kind, body = self._open(data, 2)
        if kind >= len(_UPDATE_NAMES):
            raise Rejected("unknown kind of update", got=kind, reason="malformed")
        update: Update = decode_light_client(_UPDATE_NAMES[kind], body, _get_fork(fork), self._schedule.preset)
        return _verify_same(update, self.encode_update(update), data)

    def encode_proof(self, proof: Proof) -> bytes:
        """Version, RLP of [address, slot (32 bytes), account nodes, storage nodes]."""
        fields: list[RlpItem] = [
            proof.address,
            proof.slot.to_bytes(32, "big"),
            list(proof.account_nodes),
            list(proof.storage_nodes),
        ]
        return bytes([FORMAT_VERSION]) + encode_rlp(fields)

    def decode_proof(self, data: bytes) -> Proof:
        """The proof of exactly these bytes."""
        if len(data) > MAX_PROOF_BYTES:
            raise Rejected("proof too large", got=len(data), expected=f"<= {MAX_PROOF_BYTES}", reason="size")
        (body,) = self._open(data, 0)
        # the library copies what is left at each level: nested lists would take the memory of the machine
        item = decode_rlp(body)
        if (
            not isinstance(item, list)
            or len(item) != 4
            or not isinstance(item[0], bytes)
            or not isinstance(item[1], bytes)
        ):
            raise Rejected("a proof has four fields", got=data[:40], reason="malformed")
        account_nodes, storage_nodes = (_get_nodes(nodes) for nodes in item[2:])
        if len(item[0]) != 20 or len(item[1]) != 32:
            raise Rejected("address or slot of another size", got=data[:40], reason="malformed")
        proof = Proof(item[0], int.from_bytes(item[1], "big"), account_nodes, storage_nodes)
        return _verify_same(proof, self.encode_proof(proof), data)

    def _get_fork(self, header: LightClientHeader) -> Fork:
        return self._schedule.get_fork_at_slot(header.beacon.slot)

    def _open(self, data: bytes, count: int) -> tuple[Any, ...]:
        """The ``count`` numbers after the version, and the rest."""
        if len(data) < 1 + count or data[0] != FORMAT_VERSION:
            raise Rejected(
                "unknown version of a stored object", got=data[:4], expected=FORMAT_VERSION, reason="malformed"
            )
        return (*data[1 : 1 + count], data[1 + count :])


def _get_fork(number: int) -> Fork:
    if number not in Fork.__members__.values():
        raise Rejected("data format of an unknown fork", got=number, reason="unknown_fork")
    return Fork(number)


def _get_nodes(nodes: object) -> tuple[bytes, ...]:
    if not isinstance(nodes, list) or len(nodes) > MAX_NODES or not all(isinstance(node, bytes) for node in nodes):
        raise Rejected("trie nodes are a list of byte strings", reason="malformed")
    return tuple(nodes)


def _verify_same(value: ValueT, again: bytes, data: bytes) -> ValueT:
    if again != data:
        raise Rejected("not the one encoding of this object", got=len(data), expected=len(again), reason="malformed")
    return value


# ---- settings ---------------------------------------------------------------------------------------------------------


def encode_settings(config: LightClientConfig) -> str:
    """Canonical JSON of what an operator chooses: the network (by name, or in full) and what differs from the defaults."""
    schedule = config.schedule
    default = LightClientConfig(schedule)
    found: dict[str, Any] = {
        "network": schedule.name if NETWORKS.get(schedule.name) == schedule else _encode_devnet(schedule)
    }
    if config.floor != default.floor:
        found["floor"] = list(config.floor)
    found |= {n: getattr(config, n) for n in _LIMIT_NAMES if getattr(config, n) != getattr(default, n)}
    return encode_canonical(found).decode()


def decode_settings(text: str) -> LightClientConfig:
    """The configuration of a settings text; Rejected ("bad_config") for unknown keys, other types, or values out of range."""
    found = decode_canonical(text.encode(), max_bytes=MAX_SETTINGS_BYTES)
    if not isinstance(found, dict) or not set(found) <= {"network", "floor", *_LIMIT_NAMES} or "network" not in found:
        raise _refuse_settings(found)
    network = found["network"]
    schedule = NETWORKS.get(network) if isinstance(network, str) else _decode_devnet(network)
    if schedule is None:
        raise Rejected("unknown network", got=network, expected=", ".join(NETWORKS), reason="bad_config")
    floor = found.get("floor", [2, 3])
    if not isinstance(floor, list) or len(floor) != 2 or not all(_is_number(x) for x in floor):
        raise _refuse_settings(floor)
    limits = {name: found[name] for name in _LIMIT_NAMES if name in found}
    if not all(_is_number(limit) for limit in limits.values()):
        raise _refuse_settings(limits)
    return LightClientConfig(schedule, (floor[0], floor[1]), **limits)


def _encode_devnet(schedule: ForkSchedule) -> dict[str, Any]:
    preset = schedule.preset
    return {
        "name": schedule.name,
        "genesis_time": schedule.genesis_time,
        "genesis_validators_root": encode_hex(schedule.genesis_validators_root),
        "seconds_per_slot": schedule.seconds_per_slot,
        "slots_per_epoch": preset.slots_per_epoch,
        "epochs_per_period": preset.epochs_per_period,
        "committee_size": preset.committee_size,
        "epochs": [str(epoch) for _, epoch, _ in schedule.forks],
        "versions": [encode_hex(version) for _, _, version in schedule.forks],
        "blob_schedule": [[epoch, blobs] for epoch, blobs in schedule.blob_schedule],
    }


def _decode_devnet(found: object) -> ForkSchedule:
    if not isinstance(found, Mapping):
        raise _refuse_settings(found)
    try:
        epochs = tuple(int(epoch) for epoch in found["epochs"])
        versions = tuple(decode_hex(version, 4) for version in found["versions"])
        schedule = build_devnet(
            genesis_time=found["genesis_time"],
            genesis_validators_root=decode_hex(found["genesis_validators_root"], 32),
            seconds_per_slot=found["seconds_per_slot"],
            preset=Preset(found["slots_per_epoch"], found["epochs_per_period"], found["committee_size"]),
            epochs=epochs,
            versions=versions,
            blob_schedule=tuple((epoch, blobs) for epoch, blobs in found["blob_schedule"]),
            name=found["name"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _refuse_settings(f"{type(error).__name__} {error}") from error
    preset = schedule.preset
    sizes = (schedule.seconds_per_slot, preset.slots_per_epoch, preset.epochs_per_period, preset.committee_size)
    if not all(_is_number(n) and 0 < n <= 2**16 for n in sizes) or preset.committee_size % 8:
        raise _refuse_settings(sizes)
    if not _is_number(schedule.genesis_time) or len(epochs) != len(Fork) or epochs[0] != 0:
        raise _refuse_settings(schedule.genesis_time)
    numbers = [n for entry in schedule.blob_schedule for n in entry]
    if min(epochs) < 0 or not all(_is_number(n) or n == 0 for n in numbers):
        raise _refuse_settings(numbers)
    if not _is_name(found["name"]) or _encode_devnet(schedule) != found:
        raise _refuse_settings(found["name"])
    return schedule


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value not in NETWORKS


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _refuse_settings(got: object) -> Rejected:
    return Rejected("settings of an Ethereum chain that make no sense", got=got, reason="bad_config")
