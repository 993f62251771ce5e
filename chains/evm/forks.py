"""Forks as data: which fork rules at an epoch, its version, preset sizes, and where things lie in its state tree.

One table says what changed at each fork; nothing else in the family compares forks. Built-in schedules: mainnet, sepolia, gnosis; a
devnet is built with `build_devnet`. An epoch behind the last fork known here is refused before its first signature is judged
(incident F12), because a fork may change what a signature means.

Source: consensus-specs configs and presets (mainnet, minimal), beacon-chain `compute_fork_version`, `compute_fork_digest` (Fulu, EIP-7892),
eth-clients/sepolia and gnosischain configuration files.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256

from messages.errors import Rejected

FAR_FUTURE_EPOCH = 2**64 - 1


class Fork(IntEnum):
    """Consensus forks in order."""

    PHASE0 = 0
    ALTAIR = 1
    BELLATRIX = 2
    CAPELLA = 3
    DENEB = 4
    ELECTRA = 5
    FULU = 6


@dataclass(frozen=True)
class Preset:
    """Sizes that a network fixes at genesis."""

    slots_per_epoch: int
    epochs_per_period: int
    committee_size: int


MAINNET_PRESET = Preset(slots_per_epoch=32, epochs_per_period=256, committee_size=512)
MINIMAL_PRESET = Preset(slots_per_epoch=8, epochs_per_period=8, committee_size=32)
GNOSIS_PRESET = Preset(slots_per_epoch=16, epochs_per_period=512, committee_size=512)


@dataclass(frozen=True)
class Gindices:
    """Generalised indices in the beacon state (finality, committees) and in the block body (execution payload)."""

    finalized_root: int
    current_committee: int
    next_committee: int
    execution: int = 25


_GINDICES_ALTAIR = Gindices(finalized_root=105, current_committee=54, next_committee=55)
_GINDICES_ELECTRA = Gindices(finalized_root=169, current_committee=86, next_committee=87)


def get_gindices(fork: Fork) -> Gindices:
    """Return the generalised indices of a fork; Electra's state outgrew 32 fields (electra/light-client/sync-protocol)."""
    return _GINDICES_ELECTRA if fork >= Fork.ELECTRA else _GINDICES_ALTAIR


@dataclass(frozen=True)
class ForkSchedule:
    """A network's clock, sizes and forks. Built once, from configuration.

    ``forks`` holds (fork, first epoch, 4-byte version), ascending by fork, PHASE0 first; a fork that never comes may be left out or lie
    at FAR_FUTURE_EPOCH. ``blob_schedule`` holds (epoch, max blobs) in any order. ``unknown_from_epoch`` is the first epoch of a
    fork that is scheduled on the network and not known to this program, if any.
    """

    name: str
    genesis_time: int
    genesis_validators_root: bytes
    seconds_per_slot: int
    preset: Preset
    forks: tuple[tuple[Fork, int, bytes], ...]
    blob_schedule: tuple[tuple[int, int], ...] = ()
    electra_max_blobs: int = 9
    unknown_from_epoch: int = FAR_FUTURE_EPOCH

    def get_epoch(self, slot: int) -> int:
        """Return the epoch of a slot."""
        return slot // self.preset.slots_per_epoch

    def get_period(self, slot: int) -> int:
        """Return the sync-committee period of a slot."""
        return slot // (self.preset.slots_per_epoch * self.preset.epochs_per_period)

    def get_slot(self, now: int) -> int:
        """Return the slot that is running at ``now`` (unix seconds); 0 before genesis."""
        return max(0, now - self.genesis_time) // self.seconds_per_slot

    def get_time(self, slot: int) -> int:
        """Return the unix second at which a slot begins."""
        return self.genesis_time + slot * self.seconds_per_slot

    def get_fork(self, epoch: int) -> Fork:
        """Return the fork that rules at an epoch; Rejected ("unknown_fork") behind the last one known here."""
        return self._get_entry(epoch)[0]

    def get_fork_at_slot(self, slot: int) -> Fork:
        """Return the fork that rules at a slot; Rejected ("unknown_fork")."""
        return self.get_fork(self.get_epoch(slot))

    def compute_fork_version(self, epoch: int) -> bytes:
        """Return the 4-byte version that signatures of an epoch are made under; Rejected ("unknown_fork")."""
        return self._get_entry(epoch)[2]

    def has_unknown_fork_within(self, now: int, warning_s: int) -> bool:
        """Ask whether a fork unknown to this program begins within ``warning_s`` of ``now``: tell the operator to upgrade."""
        return self.get_epoch(self.get_slot(now + warning_s)) >= self.unknown_from_epoch

    def _get_entry(self, epoch: int) -> tuple[Fork, int, bytes]:
        if epoch >= self.unknown_from_epoch:
            raise Rejected(
                f"{self.name} has a fork at this epoch that this program does not know: upgrade the relayer",
                got=epoch,
                expected=f"< {self.unknown_from_epoch}",
                reason="unknown_fork",
            )
        return max(entry for entry in self.forks if entry[1] <= epoch)


@lru_cache(maxsize=64)
def compute_fork_data_root(version: bytes, genesis_validators_root: bytes) -> bytes:
    """Return hash_tree_root(ForkData): 4-byte version padded to a chunk, hashed with the 32-byte genesis root."""
    return sha256(version.ljust(32, b"\0") + genesis_validators_root).digest()


def compute_fork_digest(schedule: ForkSchedule, epoch: int) -> bytes:
    """Return the 4-byte digest that names the data format of an epoch; from Fulu on it also names the blob parameters."""
    fork, _, version = schedule._get_entry(epoch)  # noqa: SLF001  same module
    root = compute_fork_data_root(version, schedule.genesis_validators_root)
    if fork < Fork.FULU:
        return root[:4]
    electra_epoch = next((first for known, first, _ in schedule.forks if known is Fork.ELECTRA), 0)
    blob = max(
        (entry for entry in schedule.blob_schedule if entry[0] <= epoch),
        default=(electra_epoch, schedule.electra_max_blobs),
    )
    mask = sha256(blob[0].to_bytes(8, "little") + blob[1].to_bytes(8, "little")).digest()
    return bytes(a ^ b for a, b in zip(root[:4], mask[:4], strict=True))


@lru_cache(maxsize=16)
def compute_digest_table(schedule: ForkSchedule) -> dict[bytes, Fork]:
    """Return every fork digest of the schedule with the fork whose data format it names."""
    table: dict[bytes, Fork] = {}
    for fork, first, version in schedule.forks:
        if fork < Fork.FULU:  # also of forks that lie in the far future: their data format is known
            table[compute_fork_data_root(version, schedule.genesis_validators_root)[:4]] = fork
        elif first < FAR_FUTURE_EPOCH:
            epochs = {first, *(epoch for epoch, _ in schedule.blob_schedule if epoch >= first)}
            for epoch in epochs:
                if epoch < schedule.unknown_from_epoch:
                    table[compute_fork_digest(schedule, epoch)] = schedule.get_fork(epoch)
    return table


def get_fork_of_digest(schedule: ForkSchedule, digest: bytes) -> Fork:
    """Return the fork whose data format a 4-byte digest names; Rejected ("unknown_fork")."""
    fork = compute_digest_table(schedule).get(digest)
    if fork is None:
        raise Rejected("no fork of this network has this digest", got=digest, reason="unknown_fork")
    return fork


def _schedule(first_versions: tuple[str, ...], epochs: tuple[int, ...]) -> tuple[tuple[Fork, int, bytes], ...]:
    return tuple(
        (fork, epoch, bytes.fromhex(version)) for fork, epoch, version in zip(Fork, epochs, first_versions, strict=True)
    )


MAINNET = ForkSchedule(
    name="mainnet",
    genesis_time=1606824023,
    genesis_validators_root=bytes.fromhex("4b363db94e286120d76eb905340fdd4e54bfe9f06bf33ff6cf5ad27f511bfe95"),
    seconds_per_slot=12,
    preset=MAINNET_PRESET,
    forks=_schedule(
        ("00000000", "01000000", "02000000", "03000000", "04000000", "05000000", "06000000"),
        (0, 74240, 144896, 194048, 269568, 364032, 411392),
    ),
    blob_schedule=((412672, 15), (419072, 21)),
)

SEPOLIA = ForkSchedule(
    name="sepolia",
    genesis_time=1655733600,
    genesis_validators_root=bytes.fromhex("d8ea171f3c94aea21ebc42a1ed61052acf3f9209c00e4efbaaddac09ed9b8078"),
    seconds_per_slot=12,
    preset=MAINNET_PRESET,
    forks=_schedule(
        ("90000069", "90000070", "90000071", "90000072", "90000073", "90000074", "90000075"),
        (0, 50, 100, 56832, 132608, 222464, 272640),
    ),
    blob_schedule=((274176, 15), (275712, 21)),
    unknown_from_epoch=353024,  # Gloas moves the execution payload out of the block: its light client is another protocol
)

GNOSIS = ForkSchedule(
    name="gnosis",
    genesis_time=1638993340,
    genesis_validators_root=bytes.fromhex("f5dcb5564e829aab27264b9becd5dfaa017085611224cb3036f573368dbb9d47"),
    seconds_per_slot=5,
    preset=GNOSIS_PRESET,
    forks=_schedule(
        ("00000064", "01000064", "02000064", "03000064", "04000064", "05000064", "06000064"),
        (0, 512, 385536, 648704, 889856, 1337856, 1714688),
    ),
    electra_max_blobs=2,
)

NETWORKS = {schedule.name: schedule for schedule in (MAINNET, SEPOLIA, GNOSIS)}


DEVNET_VERSIONS = tuple(bytes((fork, 0, 0, 1)) for fork in Fork)


def build_devnet(
    *,
    genesis_time: int,
    genesis_validators_root: bytes,
    seconds_per_slot: int = 12,
    preset: Preset = MINIMAL_PRESET,
    epochs: tuple[int, ...] = (0,) * len(Fork),
    versions: tuple[bytes, ...] = DEVNET_VERSIONS,
    blob_schedule: tuple[tuple[int, int], ...] = (),
    name: str = "devnet",
) -> ForkSchedule:
    """Return the schedule of a private network: first epoch and 4-byte version of PHASE0 .. FULU in order.

    By default every fork is active from genesis, with the minimal preset (8 slots an epoch, 8 epochs a period, 32 members).
    """
    return ForkSchedule(
        name=name,
        genesis_time=genesis_time,
        genesis_validators_root=genesis_validators_root,
        seconds_per_slot=seconds_per_slot,
        preset=preset,
        forks=tuple(zip(Fork, epochs, versions, strict=True)),
        blob_schedule=blob_schedule,
    )
