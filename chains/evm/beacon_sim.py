"""The consensus layer of the simulated chain: real light-client data, really signed, for the blocks of a `SimChain`.

What a light client can check is true here: beacon headers form a chain; each state root is the root of a `BeaconState` tree in
which the finalized checkpoint, the two sync committees and the execution payload header stand at their places; the
committee of 512 seats signs with BLS under the domain of the fork in force. What no light client can see is left out: validators
and attestations.

* The body is that of a block without operations, so that a whole block can be told too (`BeaconBlock.to_full_json`); of the state,
  fields that no light client sees are opaque.
* A committee's 512 seats are held by a few keys, so that one multiplication by the sum of the participating keys signs for all.
* Finality is that of a healthy chain: in epoch E the checkpoint of epoch E - 2 is finalized, and its root is that of the newest
  block at or before the first slot of that epoch. A schedule may shorten epochs and periods, never this rule.
* Trees are built by the few lines at the end of this module, not by `chains.evm.ssz`: a mistake made in both would not be seen.

Field places: consensus-specs, BeaconState and BeaconBlockBody of deneb, electra, fulu. Routes: Ethereum Beacon API, group LightClient.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any, Protocol

from py_arkworks_bls12381 import G1Point, G2Point, Scalar

from chains.evm.forks import Fork, ForkSchedule
from messages.errors import Rejected

BLS_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
BLS_DOMAIN = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
DOMAIN_SYNC_COMMITTEE = bytes.fromhex("07000000")
DISTINCT_KEYS = 16
FINALITY_LAG_EPOCHS = 2
MAX_UPDATES_PER_ANSWER = 128
MAX_KEPT_UPDATES = 512

# Places of the fields a light client proves; the rest is opaque.
STATE_GENESIS_TIME, STATE_GENESIS_ROOT, STATE_SLOT, STATE_FORK, STATE_LATEST_HEADER = range(5)
STATE_FINALIZED, STATE_CURRENT_COMMITTEE, STATE_NEXT_COMMITTEE, STATE_EXECUTION = 20, 22, 23, 24
STATE_FIELDS = {Fork.DENEB: 28, Fork.ELECTRA: 37, Fork.FULU: 38}
BODY_EXECUTION = 9
BODY_GRAFFITI = 2


class PayloadBlock(Protocol):
    """What is needed of an execution block: `sim_chain.SimBlock`, or one that `sidecar` read from a node.

    ``header`` has py-evm's field names; each of ``transactions`` has its encoding in ``raw``.
    """

    @property
    def slot(self) -> int: ...  # noqa: D102  see the class

    @property
    def number(self) -> int: ...  # noqa: D102

    @property
    def hash(self) -> bytes: ...  # noqa: D102

    @property
    def timestamp(self) -> int: ...  # noqa: D102

    @property
    def header(self) -> Any: ...  # noqa: D102

    @property
    def transactions(self) -> Sequence[Any]: ...  # noqa: D102


@dataclass(frozen=True)
class Committee:
    """512 seats over few keys. ``keys``: secret scalars; ``seats``: which key sits where."""

    keys: tuple[int, ...]
    seats: tuple[int, ...]

    @cached_property
    def pubkeys(self) -> tuple[bytes, ...]:
        """Compressed public key of each seat, 48 bytes each."""
        distinct = [_compute_pubkey(key) for key in self.keys]
        return tuple(distinct[seat] for seat in self.seats)

    @cached_property
    def aggregate(self) -> bytes:
        """Compressed sum of all public keys."""
        return _compute_pubkey(sum(self.keys[seat] for seat in self.seats) % BLS_ORDER)

    @cached_property
    def root(self) -> bytes:
        """hash_tree_root of SyncCommittee."""
        leaf = {key: _merkle(_chunks(key)) for key in set(self.pubkeys)}
        return _hash(_merkle([leaf[key] for key in self.pubkeys]), _merkle(_chunks(self.aggregate)))

    def sign(self, message: bytes, bits: Sequence[bool]) -> bytes:
        """Aggregate signature of the participating seats, 96 bytes."""
        secret = sum(self.keys[seat] for seat, bit in zip(self.seats, bits, strict=True) if bit) % BLS_ORDER
        return bytes((G2Point.hash_to_curve(message, BLS_DOMAIN) * _scalar(secret)).to_compressed_bytes())

    def to_json(self) -> dict[str, Any]:
        """The Beacon API form."""
        return {"pubkeys": [_hex(key) for key in self.pubkeys], "aggregate_pubkey": _hex(self.aggregate)}


@dataclass(frozen=True)
class BeaconBlock:
    """A beacon header with the leaves of its state and body, so that any branch can be made later."""

    slot: int
    proposer: int
    parent_root: bytes
    state_leaves: tuple[bytes, ...]
    body_leaves: tuple[bytes, ...]
    execution: Mapping[str, Any]
    transactions: tuple[bytes, ...]
    fork: Fork
    finalized_epoch: int
    finalized_root: bytes

    @cached_property
    def state_root(self) -> bytes:
        """hash_tree_root of the post-state."""
        return _merkle(self.state_leaves)

    @cached_property
    def body_root(self) -> bytes:
        """hash_tree_root of the body."""
        return _merkle(self.body_leaves)

    @cached_property
    def root(self) -> bytes:
        """hash_tree_root of the header."""
        return _compute_header_root(self.slot, self.proposer, self.parent_root, self.state_root, self.body_root)

    def get_state_branch(self, place: int) -> list[bytes]:
        """Siblings of a field of the state, from the bottom up."""
        return _branch(self.state_leaves, place)

    def to_full_json(self) -> dict[str, Any]:
        """SignedBeaconBlock in the Beacon API form (`getBlockV2`), as {version, data}; proposers of this chain do not sign."""
        payload = {k: v for k, v in self.execution.items() if k not in {"transactions_root", "withdrawals_root"}}
        payload |= {"transactions": [_hex(raw) for raw in self.transactions], "withdrawals": []}
        body: dict[str, Any] = {
            "randao_reveal": _hex(bytes(96)),
            "eth1_data": {"deposit_root": _hex(bytes(32)), "deposit_count": "0", "block_hash": _hex(bytes(32))},
            "graffiti": _hex(self.body_leaves[BODY_GRAFFITI]),
            "proposer_slashings": [],
            "attester_slashings": [],
            "attestations": [],
            "deposits": [],
            "voluntary_exits": [],
            "sync_aggregate": {"sync_committee_bits": _hex(bytes(64)), "sync_committee_signature": _hex(bytes(96))},
            "execution_payload": payload,
            "bls_to_execution_changes": [],
            "blob_kzg_commitments": [],
        }
        if self.fork >= Fork.ELECTRA:
            body["execution_requests"] = {"deposits": [], "withdrawals": [], "consolidations": []}
        message = {
            "slot": str(self.slot),
            "proposer_index": str(self.proposer),
            "parent_root": _hex(self.parent_root),
            "state_root": _hex(self.state_root),
            "body": body,
        }
        return {"version": self.fork.name.lower(), "data": {"message": message, "signature": _hex(bytes(96))}}

    def to_json(self) -> dict[str, Any]:
        """LightClientHeader in the Beacon API form."""
        return {
            "beacon": {
                "slot": str(self.slot),
                "proposer_index": str(self.proposer),
                "parent_root": _hex(self.parent_root),
                "state_root": _hex(self.state_root),
                "body_root": _hex(self.body_root),
            },
            "execution": dict(self.execution),
            "execution_branch": [_hex(node) for node in _branch(self.body_leaves, BODY_EXECUTION)],
        }


class BeaconError(Rejected):
    """An HTTP status other than 200, with the Beacon API's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, reason=f"http_{status}")
        self.status = status


@dataclass
class BeaconSim:
    """The beacon chain beside one `SimChain`. ``seed`` fixes the committees.

    ``participation`` is how many seats sign (None: all); ``finality_stalled`` keeps the finalized checkpoint where it is.
    """

    schedule: ForkSchedule
    genesis: PayloadBlock
    seed: bytes = b"optsettle sim"
    participation: int | None = None
    finality_stalled: bool = False
    blocks: list[BeaconBlock] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._by_root: dict[bytes, BeaconBlock] = {}
        self._updates: dict[bytes, dict[str, Any]] = {}
        self._committee = lru_cache(maxsize=64)(self._make_committee)
        self._sign = lru_cache(maxsize=64)(self._make_signature)  # several answers of a slot carry one signature
        self.add(self.genesis)

    # ------------------------------------------------------------------ committees

    def _make_committee(self, period: int) -> Committee:
        keys = tuple(_derive(self.seed + b"key", i) % (BLS_ORDER - 1) + 1 for i in range(DISTINCT_KEYS))
        seats = tuple(
            _derive(self.seed + b"seat%d" % period, i) % DISTINCT_KEYS
            for i in range(self.schedule.preset.committee_size)
        )
        return Committee(keys, seats)

    def _make_signature(self, period: int, signing_root: bytes, bits: tuple[bool, ...]) -> bytes:
        return self.get_committee(period).sign(signing_root, bits)

    def get_committee(self, period: int) -> Committee:
        """The sync committee of a period: the same keys in seats that differ from period to period."""
        return self._committee(period)

    # ------------------------------------------------------------------ chain

    @property
    def head(self) -> BeaconBlock:
        """The newest beacon block."""
        return self.blocks[-1]

    def add(self, block: PayloadBlock) -> BeaconBlock:
        """Make and keep the beacon block that carries an execution block."""
        made = self.make(block, self.blocks[-1] if self.blocks else None)
        self.blocks.append(made)
        self._by_root[made.root] = made
        return made

    def drop(self, count: int) -> None:
        """Forget the newest blocks, as a reorg does."""
        for block in self.blocks[-count:]:
            del self._by_root[block.root]
        del self.blocks[-count:]

    def make(
        self,
        block: PayloadBlock,
        parent: BeaconBlock | None,
        *,
        graffiti: bytes = b"",
        finalized: tuple[int, bytes] | None = None,
    ) -> BeaconBlock:
        """A beacon block on ``parent``; ``graffiti`` and ``finalized`` let a test make one that should not exist."""
        schedule = self.schedule
        epoch = schedule.get_epoch(block.slot)
        period = schedule.get_period(block.slot)
        fork = schedule.get_fork(epoch)
        final_epoch, final_root = finalized or self._get_finalized(epoch, parent)
        parent_root = parent.root if parent else bytes(32)
        proposer = _derive(self.seed + b"proposer", block.slot) % 1024
        execution, execution_root = _describe_payload(block)

        body = _get_empty_body(fork)
        body[BODY_GRAFFITI] = sha256(graffiti).digest()
        body[BODY_EXECUTION] = execution_root
        body_leaves = _pad(body)

        fork_epoch = next(first for known, first, _ in schedule.forks if known is fork)
        previous = schedule.compute_fork_version(max(fork_epoch - 1, 0))
        version = schedule.compute_fork_version(epoch)
        state = [_opaque(fork, b"state", i) for i in range(STATE_FIELDS[fork])]
        state[STATE_GENESIS_TIME] = _u64(schedule.genesis_time)
        state[STATE_GENESIS_ROOT] = schedule.genesis_validators_root
        state[STATE_SLOT] = _u64(block.slot)
        state[STATE_FORK] = _merkle([previous + bytes(28), version + bytes(28), _u64(fork_epoch)])
        state[STATE_LATEST_HEADER] = _compute_header_root(
            block.slot, proposer, parent_root, bytes(32), _merkle(body_leaves)
        )
        state[STATE_FINALIZED] = _hash(_u64(final_epoch), final_root)
        state[STATE_CURRENT_COMMITTEE] = self.get_committee(period).root
        state[STATE_NEXT_COMMITTEE] = self.get_committee(period + 1).root
        state[STATE_EXECUTION] = execution_root
        return BeaconBlock(
            block.slot,
            proposer,
            parent_root,
            _pad(state),
            body_leaves,
            execution,
            tuple(bytes(t.raw) for t in block.transactions),
            fork,
            final_epoch,
            final_root,
        )

    def _get_finalized(self, epoch: int, parent: BeaconBlock | None) -> tuple[int, bytes]:
        before = (parent.finalized_epoch, parent.finalized_root) if parent else (0, bytes(32))
        target = epoch - FINALITY_LAG_EPOCHS
        slot = target * self.schedule.preset.slots_per_epoch
        # a chain whose first block lies late has no block for the checkpoints before it
        if self.finality_stalled or target <= before[0] or not self.blocks or self.blocks[0].slot > slot:
            return before
        return target, self.get_block_at(slot).root

    def get_block_at(self, slot: int) -> BeaconBlock:
        """The newest block at or before a slot."""
        return self.blocks[max(bisect_right(self.blocks, slot, key=lambda b: b.slot) - 1, 0)]

    def get_block(self, root: bytes) -> BeaconBlock | None:
        """A block of the canonical chain by its root."""
        return self._by_root.get(root)

    def get_finalized(self, slot: int) -> BeaconBlock | None:
        """What the newest block before ``slot`` finalizes, or None while nothing is."""
        return self._by_root.get(self.get_block_at(slot - 1).finalized_root)

    # ------------------------------------------------------------------ light-client data

    def make_aggregate(
        self, attested: BeaconBlock, signature_slot: int, participation: int | None = None
    ) -> dict[str, str]:
        """SyncAggregate over ``attested``, signed by the committee of ``signature_slot``'s period."""
        size = self.schedule.preset.committee_size
        count = self.participation if participation is None else participation
        bits = [count is None or i < count for i in range(size)]
        epoch = self.schedule.get_epoch(max(signature_slot, 1) - 1)
        version = self.schedule.compute_fork_version(epoch)
        fork_data = _hash(version + bytes(28), self.schedule.genesis_validators_root)
        signing_root = _hash(attested.root, DOMAIN_SYNC_COMMITTEE + fork_data[:28])
        signature = self._sign(self.schedule.get_period(signature_slot), signing_root, tuple(bits))
        packed = bytes(sum(1 << j for j in range(8) if bits[8 * i + j]) for i in range(size // 8))
        return {"sync_committee_bits": _hex(packed), "sync_committee_signature": _hex(signature)}

    def make_update(
        self,
        attested: BeaconBlock,
        finalized: BeaconBlock | None,
        *,
        committee: bool,
        signature_slot: int | None = None,
        participation: int | None = None,
    ) -> dict[str, Any]:
        """LightClientUpdate (with ``committee``) or LightClientFinalityUpdate, as {version, data}."""
        signature_slot = attested.slot + 1 if signature_slot is None else signature_slot
        data: dict[str, Any] = {
            "attested_header": attested.to_json(),
            "sync_aggregate": self.make_aggregate(attested, signature_slot, participation),
            "signature_slot": str(signature_slot),
        }
        if committee:
            period = self.schedule.get_period(attested.slot)
            data["next_sync_committee"] = self.get_committee(period + 1).to_json()
            data["next_sync_committee_branch"] = [_hex(n) for n in attested.get_state_branch(STATE_NEXT_COMMITTEE)]
        if finalized:
            data["finalized_header"] = finalized.to_json()
            # The checkpoint is (epoch, root): its root is one level below the field.
            branch = [_u64(attested.finalized_epoch), *attested.get_state_branch(STATE_FINALIZED)]
            data["finality_branch"] = [_hex(node) for node in branch]
        return {"version": attested.fork.name.lower(), "data": data}

    def _get_update(self, attested: BeaconBlock, *, committee: bool) -> dict[str, Any]:
        key = attested.root + (b"\x01" if committee else b"\x00") + b"%d" % (self.participation or 0)
        if key not in self._updates:
            finalized = self._by_root.get(attested.finalized_root)
            if len(self._updates) >= MAX_KEPT_UPDATES:
                del self._updates[next(iter(self._updates))]
            self._updates[key] = self.make_update(attested, finalized, committee=committee)
        return self._updates[key]

    # ------------------------------------------------------------------ Beacon API

    def handle(self, path: str, query: Mapping[str, str], slot: int) -> tuple[int, Any]:
        """Answer one GET of the Beacon API as of ``slot``: (HTTP status, JSON value)."""
        try:
            return 200, self._route([part for part in path.split("/") if part], query, slot)
        except BeaconError as error:
            return error.status, {"code": error.status, "message": error.what}

    def _route(self, parts: Sequence[str], query: Mapping[str, str], slot: int) -> Any:
        match list(parts):
            case ["eth", "v1", "beacon", "genesis"]:
                return {
                    "data": {
                        "genesis_time": str(self.schedule.genesis_time),
                        "genesis_validators_root": _hex(self.schedule.genesis_validators_root),
                        "genesis_fork_version": _hex(self.schedule.forks[0][2]),
                    }
                }
            case ["eth", "v1", "config", "spec"]:
                return {"data": self._get_spec()}
            case ["eth", "v1", "beacon", "headers", name]:
                return self._get_header(name, slot)
            case ["eth", "v2", "beacon", "blocks", name]:
                return self._get_named(name, slot).to_full_json()
            case ["eth", "v1", "beacon", "light_client", "bootstrap", root]:
                return self._get_bootstrap(root)
            case ["eth", "v1", "beacon", "light_client", "updates"]:
                return self._get_updates(_number(query, "start_period"), _number(query, "count"), slot)
            case ["eth", "v1", "beacon", "light_client", "finality_update"]:
                attested = self._get_attested(slot)
                if attested.finalized_root not in self._by_root:
                    raise BeaconError(404, "nothing is finalized yet")
                return self._get_update(attested, committee=False)
            case ["eth", "v1", "beacon", "light_client", "optimistic_update"]:
                return self.make_update(self._get_attested(slot), None, committee=False)
        raise BeaconError(404, "no such route")

    def _get_attested(self, slot: int) -> BeaconBlock:
        # the block of this very slot has no signature before the next one
        return self.get_block_at(max(slot - 1, 0))

    def _get_spec(self) -> dict[str, str]:
        spec = {
            "SECONDS_PER_SLOT": str(self.schedule.seconds_per_slot),
            "SLOTS_PER_EPOCH": str(self.schedule.preset.slots_per_epoch),
            "EPOCHS_PER_SYNC_COMMITTEE_PERIOD": str(self.schedule.preset.epochs_per_period),
            "SYNC_COMMITTEE_SIZE": str(self.schedule.preset.committee_size),
            "DOMAIN_SYNC_COMMITTEE": _hex(DOMAIN_SYNC_COMMITTEE),
        }
        for fork, epoch, version in self.schedule.forks:
            spec[f"{fork.name}_FORK_EPOCH"] = str(epoch)
            spec[f"{fork.name}_FORK_VERSION"] = _hex(version)
        return spec

    def _get_header(self, name: str, slot: int) -> dict[str, Any]:
        block = self._get_named(name, slot)
        finalized = self.get_finalized(slot)
        header = {"message": block.to_json()["beacon"], "signature": _hex(bytes(96))}
        return {
            "execution_optimistic": False,
            "finalized": finalized is not None and block.slot <= finalized.slot,
            "data": {"root": _hex(block.root), "canonical": True, "header": header},
        }

    def _get_named(self, name: str, slot: int) -> BeaconBlock:
        """A block by "head", "genesis", "finalized", slot or root."""
        if name == "head":
            return self.get_block_at(slot)
        if name == "genesis":
            return self.blocks[0]
        if name == "finalized":
            finalized = self.get_finalized(slot)
            if finalized is None:
                raise BeaconError(404, "nothing is finalized yet")
            return finalized
        if name.isdecimal() and len(name) <= 20:
            block = self.get_block_at(int(name))
            if block.slot != int(name):
                raise BeaconError(404, "block not found")
            return block
        return self._find(name)

    def _find(self, root: str) -> BeaconBlock:
        try:
            block = self._by_root.get(bytes.fromhex(root.removeprefix("0x")))
        except ValueError:
            raise BeaconError(400, "invalid block root") from None
        if block is None:
            raise BeaconError(404, "block not found")
        return block

    def _get_bootstrap(self, root: str) -> dict[str, Any]:
        block = self._find(root)
        return {
            "version": block.fork.name.lower(),
            "data": {
                "header": block.to_json(),
                "current_sync_committee": self.get_committee(self.schedule.get_period(block.slot)).to_json(),
                "current_sync_committee_branch": [_hex(n) for n in block.get_state_branch(STATE_CURRENT_COMMITTEE)],
            },
        }

    def _get_updates(self, start: int, count: int, slot: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        last = self.schedule.get_period(max(slot - 1, 0))
        for period in range(start, min(start + min(count, MAX_UPDATES_PER_ANSWER), last + 1)):
            attested = self._get_best(period, slot)
            if attested is None:
                break  # an answer is consecutive from its start
            found.append(self._get_update(attested, committee=True))
        return found

    def _get_best(self, period: int, slot: int) -> BeaconBlock | None:
        """The best block of a period to attest: one whose finalized block is of the same period, if there is one; the newest."""
        schedule = self.schedule
        slots = schedule.preset.slots_per_epoch * schedule.preset.epochs_per_period
        # the last slot of a period is left out: its signature belongs to the next committee
        last = min((period + 1) * slots - 2, slot - 1)
        newest: BeaconBlock | None = None
        for block in reversed(self.blocks[: bisect_right(self.blocks, last, key=lambda b: b.slot)]):
            if block.slot < period * slots:
                break
            newest = newest or block
            finalized = self._by_root.get(block.finalized_root)
            if finalized and finalized.slot >= period * slots:
                return block
        return newest


# ---- execution payload ------------------------------------------------------------------------------------------------


def _describe_payload(block: PayloadBlock) -> tuple[dict[str, Any], bytes]:
    """ExecutionPayloadHeader of deneb to fulu: its Beacon API form and its hash_tree_root."""
    header = block.header
    transactions = _list_root([_bytes_root(t.raw, 25) for t in block.transactions], 20, len(block.transactions))
    withdrawals = _list_root([], 4, 0)
    bloom = int(header.bloom).to_bytes(256, "big")
    values: list[tuple[str, Any, bytes]] = [
        ("parent_hash", bytes(header.parent_hash), bytes(header.parent_hash)),
        ("fee_recipient", bytes(header.coinbase), bytes(header.coinbase) + bytes(12)),
        ("state_root", bytes(header.state_root), bytes(header.state_root)),
        ("receipts_root", bytes(header.receipt_root), bytes(header.receipt_root)),
        ("logs_bloom", bloom, _merkle(_chunks(bloom))),
        ("prev_randao", bytes(header.mix_hash), bytes(header.mix_hash)),
        ("block_number", block.number, _u64(block.number)),
        ("gas_limit", header.gas_limit, _u64(header.gas_limit)),
        ("gas_used", header.gas_used, _u64(header.gas_used)),
        ("timestamp", block.timestamp, _u64(block.timestamp)),
        ("extra_data", bytes(header.extra_data), _bytes_root(bytes(header.extra_data), 0)),
        ("base_fee_per_gas", header.base_fee_per_gas, int(header.base_fee_per_gas).to_bytes(32, "little")),
        ("block_hash", block.hash, block.hash),
        ("transactions_root", transactions, transactions),
        ("withdrawals_root", withdrawals, withdrawals),
        ("blob_gas_used", header.blob_gas_used, _u64(header.blob_gas_used)),
        ("excess_blob_gas", header.excess_blob_gas, _u64(header.excess_blob_gas)),
    ]
    described = {name: _hex(value) if isinstance(value, bytes) else str(value) for name, value, _ in values}
    return described, _merkle(_pad([leaf for _, _, leaf in values]))


# ---- trees ------------------------------------------------------------------------------------------------------------


def _hash(left: bytes, right: bytes) -> bytes:
    return sha256(left + right).digest()


_ZERO = [bytes(32)]
for _ in range(40):
    _ZERO.append(_hash(_ZERO[-1], _ZERO[-1]))


def _pad(leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    size = 1 << max(len(leaves) - 1, 0).bit_length()
    return tuple(leaves) + (bytes(32),) * (size - len(leaves))


def _merkle(leaves: Sequence[bytes]) -> bytes:
    layer = list(_pad(leaves))
    while len(layer) > 1:
        layer = [_hash(layer[i], layer[i + 1]) for i in range(0, len(layer), 2)]
    return layer[0]


def _branch(leaves: Sequence[bytes], place: int) -> list[bytes]:
    layer, branch = list(_pad(leaves)), []
    while len(layer) > 1:
        branch.append(layer[place ^ 1])
        layer = [_hash(layer[i], layer[i + 1]) for i in range(0, len(layer), 2)]
        place //= 2
    return branch


def _list_root(leaves: Sequence[bytes], depth: int, length: int) -> bytes:
    """Root of a list of up to 2^depth chunks, with its length mixed in."""
    root, level = (_merkle(leaves), (len(_pad(leaves)) - 1).bit_length()) if leaves else (_ZERO[0], 0)
    for height in range(level, depth):
        root = _hash(root, _ZERO[height])
    return _hash(root, _u64(length))


def _bytes_root(data: bytes, depth: int) -> bytes:
    return _list_root(_chunks(data), depth, len(data))


def _chunks(data: bytes) -> list[bytes]:
    padded = data + bytes(-len(data) % 32)
    return [padded[i : i + 32] for i in range(0, len(padded), 32)]


def _u64(number: int) -> bytes:
    return int(number).to_bytes(8, "little") + bytes(24)


def _compute_header_root(slot: int, proposer: int, parent_root: bytes, state_root: bytes, body_root: bytes) -> bytes:
    return _merkle([_u64(slot), _u64(proposer), parent_root, state_root, body_root])


@lru_cache(maxsize=8)
def _get_empty_leaves(fork: Fork) -> tuple[bytes, ...]:
    electra = fork >= Fork.ELECTRA
    leaves = [
        _ZERO[2],  # randao_reveal: 96 bytes
        _ZERO[2],  # eth1_data: three fields
        _ZERO[0],
        _list_root([], 4, 0),  # proposer_slashings
        _list_root([], 0 if electra else 1, 0),  # attester_slashings
        _list_root([], 3 if electra else 7, 0),  # attestations
        _list_root([], 4, 0),  # deposits
        _list_root([], 4, 0),  # voluntary_exits
        _hash(_ZERO[1], _ZERO[2]),  # sync_aggregate: 64 bytes of bits, 96 bytes of signature
        _ZERO[0],
        _list_root([], 4, 0),  # bls_to_execution_changes
        _list_root([], 12, 0),  # blob_kzg_commitments
    ]
    if electra:
        leaves.append(_merkle([_list_root([], 13, 0), _list_root([], 4, 0), _list_root([], 1, 0)]))
    return tuple(leaves)


def _get_empty_body(fork: Fork) -> list[bytes]:
    """Leaves of a body without operations; graffiti and payload are filled in by the caller (BeaconBlockBody, presets of main-net)."""
    return list(_get_empty_leaves(fork))


@lru_cache(maxsize=256)
def _opaque(fork: Fork, where: bytes, index: int) -> bytes:
    return sha256(b"opaque" + fork.name.encode() + where + bytes([index])).digest()


# ---- small things -----------------------------------------------------------------------------------------------------


def _derive(seed: bytes, index: int) -> int:
    return int.from_bytes(sha256(seed + index.to_bytes(8, "big")).digest(), "big")


def _scalar(number: int) -> Any:
    return Scalar.from_be_bytes(number.to_bytes(32, "big"))


@lru_cache(maxsize=1024)
def _compute_pubkey(secret: int) -> bytes:
    return bytes((G1Point() * _scalar(secret)).to_compressed_bytes())


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if not text.isdecimal() or len(text) > 12:
        raise BeaconError(400, f"{name} must be a number")
    return int(text)


def replace_finalized(block: BeaconBlock, finalized: BeaconBlock) -> BeaconBlock:
    """``block`` with another finalized block in its state, for the same checkpoint epoch."""
    leaves = list(block.state_leaves)
    leaves[STATE_FINALIZED] = _hash(_u64(block.finalized_epoch), finalized.root)
    return replace(block, state_leaves=tuple(leaves), finalized_root=finalized.root)
