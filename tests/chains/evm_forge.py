"""Makes light-client statements with test keys: real trees, real branches, real BLS signatures; any part may be made wrong on purpose.

Trees hold the leaves that are asked for at their generalised indices and filler elsewhere. A committee's seats are shared by a few
keys, so that one multiplication signs for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from hashlib import sha256

from py_arkworks_bls12381 import G1Point, Scalar

from chains.evm import light_client as lc
from chains.evm.bls import aggregate_pubkeys, hash_to_g2
from chains.evm.forks import Fork, ForkSchedule, Preset, build_devnet, get_gindices
from chains.evm.ssz import compute_committee_root, compute_execution_root, compute_header_root, compute_signing_root
from chains.evm.types import (
    BeaconHeader,
    Bootstrap,
    ExecutionHeader,
    LightClientHeader,
    SyncAggregate,
    SyncCommittee,
    Trusted,
    Update,
)

GENESIS_TIME = 1_700_000_000
SECRETS = 4
ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
PERIOD = 64  # slots, with the presets used here
SMALL = Preset(slots_per_epoch=8, epochs_per_period=8, committee_size=32)
LARGE = Preset(slots_per_epoch=8, epochs_per_period=8, committee_size=512)
DEVNET = build_devnet(genesis_time=GENESIS_TIME, genesis_validators_root=sha256(b"genesis").digest(), preset=SMALL)
DEVNET_512 = replace(DEVNET, preset=LARGE)


def get_secret(period: int, seat: int) -> int:
    return int.from_bytes(sha256(f"{period}/{seat % SECRETS}".encode()).digest(), "big") % ORDER


@lru_cache(maxsize=64)
def get_committee(period: int, size: int) -> SyncCommittee:
    few = [(G1Point() * Scalar(get_secret(period, seat))).to_compressed_bytes() for seat in range(SECRETS)]
    pubkeys = tuple(few[seat % SECRETS] for seat in range(size))
    return SyncCommittee(pubkeys, aggregate_pubkeys(pubkeys))


def build_tree(leaves: Mapping[int, bytes], salt: bytes) -> tuple[bytes, dict[int, tuple[bytes, ...]]]:
    """Return the root of a tree with ``leaves`` at their generalised indices, and the branch of each."""
    inner = {gindex >> level for gindex in leaves for level in range(1, gindex.bit_length())}

    @cache
    def node(gindex: int) -> bytes:
        if gindex in leaves:
            return leaves[gindex]
        if gindex in inner:
            return sha256(node(2 * gindex) + node(2 * gindex + 1)).digest()
        return sha256(salt + gindex.to_bytes(4, "big")).digest()

    branches = {
        gindex: tuple(node((gindex >> level) ^ 1) for level in range(gindex.bit_length() - 1)) for gindex in leaves
    }
    return node(1), branches


def build_bits(count: int, size: int) -> bytes:
    """Return a bitvector with the last ``count`` of ``size`` seats set."""
    return (((1 << count) - 1) << (size - count)).to_bytes(size // 8, "little")


@dataclass(frozen=True)
class Forge:
    """Statements of one network. ``salt`` makes another history of the same network."""

    schedule: ForkSchedule = DEVNET
    salt: bytes = b""

    @property
    def size(self) -> int:
        return self.schedule.preset.committee_size

    def make_header(self, slot: int, leaves: Mapping[int, bytes] | None = None) -> LightClientHeader:
        return self.make_header_with_branches(slot, leaves or {})[0]

    def make_header_with_branches(
        self, slot: int, leaves: Mapping[int, bytes], state_root: bytes | None = None
    ) -> tuple[LightClientHeader, dict[int, tuple[bytes, ...]]]:
        """Return the header of a slot whose beacon state holds ``leaves``, and their branches."""
        salt = self.salt + slot.to_bytes(8, "big")
        fork = self.schedule.get_fork_at_slot(slot)
        root, branches = build_tree(dict(leaves) or {2: sha256(salt).digest()}, salt)
        execution = self.make_execution(slot, state_root) if fork >= Fork.CAPELLA else None
        if execution is None:
            body, execution_branch = sha256(b"body" + salt).digest(), ()
        else:
            gindex = get_gindices(fork).execution
            body, body_branches = build_tree({gindex: compute_execution_root(execution, fork)}, b"body" + salt)
            execution_branch = body_branches[gindex]
        beacon = BeaconHeader(slot, slot % 7, sha256(b"parent" + salt).digest(), root, body)
        return LightClientHeader(beacon, execution, execution_branch), branches

    def make_execution(self, slot: int, state_root: bytes | None = None) -> ExecutionHeader:
        salt = self.salt + slot.to_bytes(8, "big")
        has_blobs = self.schedule.get_fork_at_slot(slot) >= Fork.DENEB
        return ExecutionHeader(
            parent_hash=sha256(b"1" + salt).digest(),
            fee_recipient=bytes(20),
            state_root=state_root or sha256(b"2" + salt).digest(),
            receipts_root=sha256(b"3" + salt).digest(),
            logs_bloom=bytes(256),
            prev_randao=sha256(b"4" + salt).digest(),
            block_number=slot + 1000,
            gas_limit=36_000_000,
            gas_used=21_000,
            timestamp=self.schedule.get_time(slot),
            extra_data=b"forge",
            base_fee_per_gas=7,
            block_hash=sha256(b"5" + salt).digest(),
            transactions_root=sha256(b"6" + salt).digest(),
            withdrawals_root=sha256(b"7" + salt).digest(),
            blob_gas_used=131072 if has_blobs else 0,
            excess_blob_gas=5 if has_blobs else 0,
        )

    def make_bootstrap(self, slot: int) -> Bootstrap:
        committee = get_committee(self.schedule.get_period(slot), self.size)
        gindex = get_gindices(self.schedule.get_fork_at_slot(slot)).current_committee
        header, branches = self.make_header_with_branches(slot, {gindex: compute_committee_root(committee)})
        return Bootstrap(header, committee, branches[gindex])

    def make_trusted(self, slot: int, *, knows_next: bool = False) -> Trusted:
        trusted = lc.verify_anchor(self.make_bootstrap(slot), self.schedule)
        following = get_committee(self.schedule.get_period(slot) + 1, self.size)
        return replace(trusted, next_committee=following if knows_next else None)

    def make_update(
        self,
        attested_slot: int,
        finalized_slot: int | None = None,
        *,
        next_committee: SyncCommittee | bool | None = True,
        signature_slot: int | None = None,
        participants: int | None = None,
        version: bytes | None = None,
        state_root: bytes | None = None,
        finalized: LightClientHeader | None = None,
    ) -> Update:
        """Return a signed update. ``next_committee`` True: the right one; ``version`` None: the right fork version."""
        gindices = get_gindices(self.schedule.get_fork_at_slot(attested_slot))
        leaves: dict[int, bytes] = {}
        if finalized is None and finalized_slot is not None:
            finalized = self.make_header_with_branches(finalized_slot, {}, state_root)[0]
        if finalized is not None:
            leaves[gindices.finalized_root] = compute_header_root(finalized.beacon)
        if next_committee is True:
            next_committee = get_committee(self.schedule.get_period(attested_slot) + 1, self.size)
        if next_committee:
            leaves[gindices.next_committee] = compute_committee_root(next_committee)
        attested, branches = self.make_header_with_branches(attested_slot, leaves)
        unsigned = Update(
            attested=attested,
            aggregate=SyncAggregate(
                build_bits(self.size if participants is None else participants, self.size), bytes(96)
            ),
            signature_slot=attested_slot + 1 if signature_slot is None else signature_slot,
            finalized=finalized,
            finality_branch=branches.get(gindices.finalized_root, ()),
            next_committee=next_committee or None,
            next_committee_branch=branches.get(gindices.next_committee, ()),
        )
        return self.sign(unsigned, version=version)

    def sign(self, update: Update, *, period: int | None = None, version: bytes | None = None) -> Update:
        """Return the update signed by its participants of the committee of its signature slot (or of ``period``)."""
        period = self.schedule.get_period(update.signature_slot) if period is None else period
        schedule = self.schedule
        if version is not None:  # sign under this fork version, whatever the slot says
            schedule = replace(schedule, forks=((Fork.PHASE0, 0, version),))
        domain = lc.compute_sync_domain(update.signature_slot, schedule)
        message = compute_signing_root(compute_header_root(update.attested.beacon), domain)
        bits = int.from_bytes(update.aggregate.bits, "little")
        secret = sum(get_secret(period, seat) for seat in range(self.size) if bits >> seat & 1) % ORDER
        signature = (hash_to_g2(message) * Scalar(secret)).to_compressed_bytes()
        return replace(update, aggregate=replace(update.aggregate, signature=signature))

    def get_time(self, slot: int) -> int:
        return self.schedule.get_time(slot)
