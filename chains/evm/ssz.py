"""SSZ: bytes, hash tree roots and branches of what a light client reads (consensus-specs: simple-serialize, merkle-proofs).

Types are small objects made of others (`Uint`, `Bytes`, `ByteList`, `Vector`, `Container`, `OrAbsent`); the light-client objects of
every fork are built from one table of fields, so a new fork is data. Decoders are strict: every offset must be the one that an encoder
would write, every size exact, every limit held; anything else is Rejected ("bad_ssz").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

from chains.evm.forks import Fork, Preset
from chains.evm.types import (
    BeaconHeader,
    Bootstrap,
    ExecutionHeader,
    LightClientHeader,
    SyncAggregate,
    SyncCommittee,
    Update,
)
from messages.errors import Rejected

ZERO32 = bytes(32)
MAX_LIGHT_CLIENT_BYTES = 1 << 20
"""No light-client object comes near this; a mainnet update is 26 kB."""


def _compute_zero_hashes(depth: int) -> tuple[bytes, ...]:
    hashes = [ZERO32]
    for _ in range(depth):
        hashes.append(sha256(hashes[-1] * 2).digest())
    return tuple(hashes)


_ZERO_HASHES = _compute_zero_hashes(64)


def merkleize(chunks: Sequence[bytes], limit: int | None = None) -> bytes:
    """Return the root over 32-byte chunks, padded with zero chunks to the next power of two of ``limit`` (default: their number)."""
    size = max(limit if limit is not None else len(chunks), 1)
    depth = (size - 1).bit_length()
    layer = list(chunks)
    if not layer:
        return _ZERO_HASHES[depth]
    for level in range(depth):
        if len(layer) % 2:
            layer.append(_ZERO_HASHES[level])
        layer = [sha256(one + other).digest() for one, other in zip(layer[::2], layer[1::2], strict=True)]
    return layer[0]


def compute_branch_root(leaf: bytes, branch: Sequence[bytes], gindex: int) -> bytes:
    """Return the root that a branch (deepest sibling first) leads to from a leaf at a generalised index.

    The branch must be exactly as long as the index is deep (a caller's duty, checked).
    """
    if len(branch) != gindex.bit_length() - 1:
        raise Rejected("branch length", got=len(branch), expected=gindex.bit_length() - 1, reason="bad_branch")
    node = leaf
    for level, sibling in enumerate(branch):
        node = sha256(sibling + node).digest() if gindex >> level & 1 else sha256(node + sibling).digest()
    return node


def is_valid_branch(leaf: bytes, branch: Sequence[bytes], gindex: int, root: bytes) -> bool:
    """Ask whether a branch proves a leaf at a generalised index under a root.

    Branches written by a store of a later fork may carry zero chunks in front (electra/light-client/fork
    `normalize_merkle_branch`); a non-zero chunk there, or a branch that is too short, proves nothing.
    """
    extra = len(branch) - (gindex.bit_length() - 1)
    if extra < 0 or any(chunk != ZERO32 for chunk in branch[:extra]):
        return False
    return compute_branch_root(leaf, branch[extra:], gindex) == root


# ---- types ------------------------------------------------------------------------------------------------------------


class SszType(ABC):
    """An SSZ type: ``size`` in bytes, or None where it depends on the value."""

    size: int | None

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """Return the serialisation of a value."""

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """Return the value of exactly these bytes; Rejected ("bad_ssz")."""

    @abstractmethod
    def root(self, value: Any) -> bytes:
        """Return hash_tree_root."""

    @abstractmethod
    def default(self) -> Any:
        """Return the zero value."""


def _refuse(what: str, got: object = None, expected: object = None) -> Rejected:
    return Rejected(f"SSZ: {what}", got=got, expected=expected, reason="bad_ssz")


class Uint(SszType):
    """An unsigned integer of ``size`` bytes, little-endian."""

    def __init__(self, size: int) -> None:
        self.size: int = size

    def encode(self, value: int) -> bytes:  # noqa: D102
        return value.to_bytes(self.size, "little")

    def decode(self, data: bytes) -> int:  # noqa: D102
        if len(data) != self.size:
            raise _refuse("integer size", len(data), self.size)
        return int.from_bytes(data, "little")

    def root(self, value: int) -> bytes:  # noqa: D102
        return value.to_bytes(32, "little")

    def default(self) -> int:  # noqa: D102
        return 0


class Bytes(SszType):
    """Exactly ``size`` bytes (ByteVector; also Bitvector of 8 * size bits)."""

    def __init__(self, size: int) -> None:
        self.size: int = size

    def encode(self, value: bytes) -> bytes:  # noqa: D102
        return self.decode(value)

    def decode(self, data: bytes) -> bytes:  # noqa: D102
        if len(data) != self.size:
            raise _refuse("byte vector size", len(data), self.size)
        return data

    def root(self, value: bytes) -> bytes:  # noqa: D102
        data = self.decode(value)
        if self.size == 32:  # roots, and the 512 keys of a committee: most of what is hashed
            return data
        if 32 < self.size <= 64:
            return sha256(data.ljust(64, b"\0")).digest()
        return merkleize(pack(data))

    def default(self) -> bytes:  # noqa: D102
        return bytes(self.size)


class ByteList(SszType):
    """At most ``limit`` bytes."""

    size = None

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def encode(self, value: bytes) -> bytes:  # noqa: D102
        return self.decode(value)

    def decode(self, data: bytes) -> bytes:  # noqa: D102
        if len(data) > self.limit:
            raise _refuse("byte list too long", len(data), f"<= {self.limit}")
        return data

    def root(self, value: bytes) -> bytes:  # noqa: D102
        return mix_in_length(merkleize(pack(self.decode(value)), (self.limit + 31) // 32), len(value))

    def default(self) -> bytes:  # noqa: D102
        return b""


class Vector(SszType):
    """Exactly ``count`` elements of a type of fixed size, as a tuple. Elements that are not integers have one chunk each."""

    def __init__(self, element: SszType, count: int) -> None:
        assert element.size is not None
        self.element = element
        self.step = element.size
        self.count = count
        self.size: int = count * element.size

    def encode(self, value: Sequence[Any]) -> bytes:  # noqa: D102
        if len(value) != self.count:
            raise _refuse("vector length", len(value), self.count)
        if isinstance(self.element, Bytes) and set(map(len, value)) == {self.step}:
            return b"".join(
                value
            )  # the keys of a committee, written with every header: the element would say the same of each
        return b"".join(map(self.element.encode, value))

    def decode(self, data: bytes) -> tuple[Any, ...]:  # noqa: D102
        if len(data) != self.size:
            raise _refuse("vector size", len(data), self.size)
        parts = [data[i : i + self.step] for i in range(0, self.size, self.step)]
        return tuple(parts) if isinstance(self.element, Bytes) else tuple(map(self.element.decode, parts))

    def root(self, value: Sequence[Any]) -> bytes:  # noqa: D102
        if len(value) != self.count:
            raise _refuse("vector length", len(value), self.count)
        if isinstance(self.element, Uint):
            return merkleize(pack(self.encode(value)))
        return merkleize([self.element.root(item) for item in value])

    def default(self) -> tuple[Any, ...]:  # noqa: D102
        return (self.element.default(),) * self.count


class Container(SszType):
    """Named fields in order; ``make`` builds the value from keyword arguments, fields are read as attributes.

    A field that a value of an older fork lacks is not in ``fields`` of that fork's container, so ``make`` needs a default for it.
    """

    def __init__(self, make: Callable[..., Any], fields: Sequence[tuple[str, SszType]]) -> None:
        self.make = make
        self.fields = tuple(fields)
        sizes = [kind.size for _, kind in fields]
        self.fixed_part = sum(4 if size is None else size for size in sizes)
        self.size = None if None in sizes else self.fixed_part

    def encode(self, value: Any) -> bytes:  # noqa: D102
        head, tail = [], []
        offset = self.fixed_part
        for name, kind in self.fields:
            part = kind.encode(getattr(value, name))
            if kind.size is None:
                head.append(offset.to_bytes(4, "little"))
                tail.append(part)
                offset += len(part)
            else:
                head.append(part)
        return b"".join(head) + b"".join(tail)

    def decode(self, data: bytes) -> Any:  # noqa: D102
        if len(data) < self.fixed_part or (self.size is not None and len(data) != self.size):
            raise _refuse("container size", len(data), self.fixed_part)
        values: dict[str, Any] = {}
        variable: list[tuple[str, SszType, int]] = []
        at = 0
        for name, kind in self.fields:
            if kind.size is None:
                variable.append((name, kind, int.from_bytes(data[at : at + 4], "little")))
                at += 4
            else:
                values[name] = kind.decode(data[at : at + kind.size])
                at += kind.size
        ends = [offset for _, _, offset in variable[1:]] + [len(data)] * bool(variable)
        if variable and variable[0][2] != self.fixed_part:
            raise _refuse("first offset", variable[0][2], self.fixed_part)
        for (name, kind, begin), end in zip(variable, ends, strict=True):
            if not begin <= end <= len(data):
                raise _refuse("offsets not ascending within the object", end, f"{begin}..{len(data)}")
            values[name] = kind.decode(data[begin:end])
        return self.make(**values)

    def root(self, value: Any) -> bytes:  # noqa: D102
        return merkleize([kind.root(getattr(value, name)) for name, kind in self.fields])

    def default(self) -> Any:  # noqa: D102
        return self.make(**{name: kind.default() for name, kind in self.fields})


class OrAbsent(SszType):
    """A value whose zero form means "absent" (light-client objects have no options): ``absent`` stands for it in our types."""

    def __init__(self, inner: SszType, absent: object) -> None:
        self.inner = inner
        self.absent = absent
        self.size = inner.size
        self.zero = inner.default()
        self.zero_bytes = inner.encode(self.zero)

    def encode(self, value: Any) -> bytes:  # noqa: D102
        return self.zero_bytes if value == self.absent else self.inner.encode(value)

    def decode(self, data: bytes) -> Any:  # noqa: D102
        return self.absent if data == self.zero_bytes else self.inner.decode(data)

    def root(self, value: Any) -> bytes:  # noqa: D102
        return self.inner.root(self.zero if value == self.absent else value)

    def default(self) -> Any:  # noqa: D102
        return self.absent


def pack(data: bytes) -> list[bytes]:
    """Return 32-byte chunks of serialised basic values, the last padded with zeros."""
    padded = data.ljust(-(-len(data) // 32) * 32, b"\0")
    return [padded[i : i + 32] for i in range(0, len(padded), 32)]


def mix_in_length(root: bytes, length: int) -> bytes:
    """Return the root of a list from the root of its elements and their number."""
    return sha256(root + length.to_bytes(32, "little")).digest()


# ---- light-client objects ---------------------------------------------------------------------------------------------

UINT64 = Uint(8)
BYTES4 = Bytes(4)
BYTES20 = Bytes(20)
BYTES32 = Bytes(32)
BYTES48 = Bytes(48)
BYTES96 = Bytes(96)
EXECUTION_BRANCH_DEPTH = 4

BEACON_HEADER = Container(
    BeaconHeader,
    (
        ("slot", UINT64),
        ("proposer_index", UINT64),
        ("parent_root", BYTES32),
        ("state_root", BYTES32),
        ("body_root", BYTES32),
    ),
)

_EXECUTION_FIELDS: tuple[tuple[Fork, str, SszType], ...] = (
    (Fork.BELLATRIX, "parent_hash", BYTES32),
    (Fork.BELLATRIX, "fee_recipient", BYTES20),
    (Fork.BELLATRIX, "state_root", BYTES32),
    (Fork.BELLATRIX, "receipts_root", BYTES32),
    (Fork.BELLATRIX, "logs_bloom", Bytes(256)),
    (Fork.BELLATRIX, "prev_randao", BYTES32),
    (Fork.BELLATRIX, "block_number", UINT64),
    (Fork.BELLATRIX, "gas_limit", UINT64),
    (Fork.BELLATRIX, "gas_used", UINT64),
    (Fork.BELLATRIX, "timestamp", UINT64),
    (Fork.BELLATRIX, "extra_data", ByteList(32)),
    (Fork.BELLATRIX, "base_fee_per_gas", Uint(32)),
    (Fork.BELLATRIX, "block_hash", BYTES32),
    (Fork.BELLATRIX, "transactions_root", BYTES32),
    (Fork.CAPELLA, "withdrawals_root", BYTES32),
    (Fork.DENEB, "blob_gas_used", UINT64),
    (Fork.DENEB, "excess_blob_gas", UINT64),
)


@lru_cache(maxsize=8)
def get_execution_type(fork: Fork) -> Container:
    """Return the execution payload header type of a fork (Bellatrix or later)."""
    return Container(ExecutionHeader, tuple((name, kind) for first, name, kind in _EXECUTION_FIELDS if first <= fork))


@lru_cache(maxsize=8)
def get_header_type(fork: Fork) -> Container:
    """Return the light-client header type of a fork: the beacon header alone before Capella."""
    if fork < Fork.CAPELLA:
        return Container(LightClientHeader, (("beacon", BEACON_HEADER),))
    branch = Vector(BYTES32, EXECUTION_BRANCH_DEPTH)
    return Container(
        LightClientHeader,
        (
            ("beacon", BEACON_HEADER),
            ("execution", OrAbsent(get_execution_type(fork), None)),
            ("execution_branch", OrAbsent(branch, ())),
        ),
    )


@lru_cache(maxsize=8)
def get_committee_type(size: int) -> Container:
    """Return the sync-committee type of ``size`` members."""
    return Container(SyncCommittee, (("pubkeys", Vector(BYTES48, size)), ("aggregate_pubkey", BYTES48)))


@lru_cache(maxsize=8)
def get_aggregate_type(size: int) -> Container:
    """Return the sync-aggregate type of ``size`` members."""
    return Container(SyncAggregate, (("bits", Bytes(size // 8)), ("signature", BYTES96)))


@lru_cache(maxsize=64)
def get_light_client_type(name: str, fork: Fork, committee_size: int) -> Container:
    """Return the type of a light-client object.

    Args:
        name: "bootstrap", "update", "finality_update" or "optimistic_update".
        fork: data format (Altair or later).
        committee_size: members of a sync committee.
    """
    depth_of_finality, depth_of_committee = (7, 6) if fork >= Fork.ELECTRA else (6, 5)
    header = get_header_type(fork)
    committee = get_committee_type(committee_size)
    committee_branch = Vector(BYTES32, depth_of_committee)
    if name == "bootstrap":
        return Container(
            Bootstrap,
            (("header", header), ("current_committee", committee), ("current_committee_branch", committee_branch)),
        )
    attested: tuple[tuple[str, SszType], ...] = (("attested", header),)
    next_committee: tuple[tuple[str, SszType], ...] = (
        ("next_committee", OrAbsent(committee, None)),
        ("next_committee_branch", OrAbsent(committee_branch, ())),
    )
    finality: tuple[tuple[str, SszType], ...] = (
        ("finalized", OrAbsent(header, None)),
        ("finality_branch", OrAbsent(Vector(BYTES32, depth_of_finality), ())),
    )
    signed: tuple[tuple[str, SszType], ...] = (
        ("aggregate", get_aggregate_type(committee_size)),
        ("signature_slot", UINT64),
    )
    fields = {
        "update": attested + next_committee + finality + signed,
        "finality_update": attested + finality + signed,
        "optimistic_update": attested + signed,
    }
    return Container(Update, fields[name])


def decode_light_client(name: str, data: bytes, fork: Fork, preset: Preset) -> Any:
    """Return the Bootstrap ("bootstrap") or Update ("update", "finality_update", "optimistic_update") of SSZ bytes.

    Raises Rejected ("size", "bad_ssz").
    """
    if len(data) > MAX_LIGHT_CLIENT_BYTES:
        raise Rejected("light-client object too large", got=len(data), expected=MAX_LIGHT_CLIENT_BYTES, reason="size")
    return get_light_client_type(name, fork, preset.committee_size).decode(data)


def encode_light_client(name: str, value: Bootstrap | Update, fork: Fork, preset: Preset) -> bytes:
    """Return the SSZ bytes of a Bootstrap or Update in the data format of a fork; see `decode_light_client` for ``name``."""
    return get_light_client_type(name, fork, preset.committee_size).encode(value)


# ---- roots a light client asks for ------------------------------------------------------------------------------------


def compute_header_root(header: BeaconHeader) -> bytes:
    """Return hash_tree_root(BeaconBlockHeader), the beacon block root."""
    return BEACON_HEADER.root(header)


def compute_execution_root(execution: ExecutionHeader, fork: Fork) -> bytes:
    """Return hash_tree_root of the execution payload header as the fork of its slot defines it (`get_lc_execution_root`)."""
    return get_execution_type(fork).root(execution)


@lru_cache(maxsize=16)
def compute_committee_root(committee: SyncCommittee) -> bytes:
    """Return hash_tree_root(SyncCommittee). Remembered: an update repeats the committee of its period 512 keys long."""
    return get_committee_type(len(committee.pubkeys)).root(committee)


def compute_signing_root(object_root: bytes, domain: bytes) -> bytes:
    """Return hash_tree_root(SigningData) of two 32-byte values."""
    return sha256(object_root + domain).digest()
