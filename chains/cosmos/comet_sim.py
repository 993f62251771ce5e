"""The consensus of a simulated CometBFT chain: real headers, really signed by ed25519 validators, in this process.

What a light client can check is true here: headers name their predecessor, the commit over it, the two validator sets, the application's
hash; every validator signs its own vote with its own time; a change of validators is announced one header ahead and in force two after it
was made. What no light client sees is left out: rounds, proposals, gossip.

The time of a header is that of its proposer (proposer-based timestamps), because blocks in which nothing happens are skipped: the median of
old votes would lie as far back as the last block.

Source: CometBFT specification, "Data structures"; `types/block.go`, `types/part_set.go`, `types/params.go`, `abci/types` of v0.39.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from nacl.signing import SigningKey

from chains.cosmos.hashing import (
    VoteEncoder,
    compute_address,
    compute_header_hash,
    compute_merkle_root,
    compute_validators_hash,
)
from chains.cosmos.protobuf import (
    encode_bytes,
    encode_commit,
    encode_commit_sig,
    encode_header,
    encode_integer,
    encode_message,
)
from chains.cosmos.types import (
    BlockId,
    Commit,
    CommitSig,
    Flag,
    Header,
    KeyType,
    LightBlock,
    PartSetHeader,
    PublicKey,
    Validator,
    ValidatorSet,
)

BLOCK_PROTOCOL = 11
PART_BYTES = 65_536
MAX_BLOCK_BYTES = 22_020_096
MAX_BLOCK_GAS = -1
VOTE_DELAY_NS = 700_000_000
VOTE_STEP_NS = 1_000_003
"""Each validator's clock is a little apart."""
POWERS = (40, 30, 20, 10)


@dataclass(frozen=True)
class CometBlock:
    """A block of the chain with the commit over it; ``height`` 1 is the first."""

    header: Header
    transactions: tuple[bytes, ...]
    last_commit: Commit
    commit: Commit
    validators: ValidatorSet
    next_validators: ValidatorSet
    size: int

    @property
    def height(self) -> int:
        """Height."""
        return self.header.height

    @property
    def hash(self) -> bytes:
        """32-byte header hash."""
        return self.commit.block_id.hash

    @property
    def light_block(self) -> LightBlock:
        """What a light client takes."""
        return LightBlock(self.header, self.commit, self.validators, self.next_validators)


@dataclass
class CometSim:
    """Validators and blocks of one chain. ``seed`` fixes the keys; ``powers`` those of the first set, by name."""

    chain_id: str
    powers: Mapping[str, int]
    seed: bytes = b"optsettle sim"
    blocks: list[CometBlock] = field(default_factory=list, init=False)
    absent: frozenset[str] = frozenset()
    """Validators that do not sign."""

    def __post_init__(self) -> None:
        self._keys: dict[str, SigningKey] = {}
        self._names: dict[bytes, str] = {}
        first = self.make_set(self.powers)
        self._sets = {1: first, 2: first}

    # ------------------------------------------------------------------ validators

    def _get_key(self, name: str) -> SigningKey:
        if name not in self._keys:
            self._keys[name] = SigningKey(sha256(self.seed + b" validator " + name.encode()).digest())
            self._names[bytes(self._keys[name].verify_key)] = name
        return self._keys[name]

    def get_public_key(self, name: str) -> PublicKey:
        """A validator's key."""
        return PublicKey(KeyType.ED25519, bytes(self._get_key(name).verify_key))

    def make_set(self, powers: Mapping[str, int]) -> ValidatorSet:
        """A set in the chain's order: power descending, then address."""
        members = [Validator(self.get_public_key(name), power) for name, power in powers.items() if power]
        return ValidatorSet(tuple(sorted(members, key=lambda v: (-v.power, compute_address(v.key)))))

    def get_set(self, height: int) -> ValidatorSet:
        """The validators of a height, known up to one above the next block."""
        return self._sets[height]

    def change_validators(self, powers: Mapping[str, int]) -> None:
        """Have the next block announce another set: its successor's header names it as the next one, the block after it is signed by it."""
        self.powers = dict(powers)

    @property
    def is_changing(self) -> bool:
        """Whether a change of validators was asked for that no header names yet."""
        return bool(self.blocks) and self.make_set(self.powers) != self._sets[len(self.blocks) + 1]

    # ------------------------------------------------------------------ blocks

    @property
    def head(self) -> CometBlock:
        """The newest block."""
        return self.blocks[-1]

    def get_block(self, height: int) -> CometBlock | None:
        """A block, or None."""
        return self.blocks[height - 1] if 1 <= height <= len(self.blocks) else None

    def make_header(
        self, time_ns: int, transactions: Sequence[bytes], app_hash: bytes, last_results_hash: bytes
    ) -> Header:
        """The header of the next block."""
        height = len(self.blocks) + 1
        validators = self._sets[height]
        last = self.blocks[-1].commit if self.blocks else Commit(0, 0, BlockId(), ())
        return Header(
            version_block=BLOCK_PROTOCOL,
            version_app=0,
            chain_id=self.chain_id,
            height=height,
            time_ns=time_ns,
            last_block_id=last.block_id,
            last_commit_hash=compute_merkle_root([encode_commit_sig(vote) for vote in last.signatures]),
            data_hash=compute_merkle_root([sha256(raw).digest() for raw in transactions]),
            validators_hash=compute_validators_hash(validators),
            next_validators_hash=compute_validators_hash(self._sets[height + 1]),
            consensus_hash=sha256(encode_integer(1, MAX_BLOCK_BYTES) + encode_integer(2, MAX_BLOCK_GAS)).digest(),
            app_hash=app_hash,
            last_results_hash=last_results_hash,
            evidence_hash=compute_merkle_root([]),
            proposer_address=compute_address(validators.validators[height % len(validators.validators)].key),
        )

    def make_block(self, header: Header, transactions: Sequence[bytes], *, absent: Collection[str] = ()) -> CometBlock:
        """A block of a header, signed by everybody who is not absent. It does not join the chain."""
        last = self.blocks[header.height - 2].commit if header.height > 1 else Commit(0, 0, BlockId(), ())
        body = encode_block(header, transactions, last)
        block_id = BlockId(compute_header_hash(header), compute_parts(body))
        validators = self._sets[header.height]
        commit = self.sign(header, block_id, validators, absent=absent)
        following = self._sets.get(header.height + 1, validators)
        return CometBlock(header, tuple(transactions), last, commit, validators, following, len(body))

    def sign(
        self, header: Header, block_id: BlockId, validators: ValidatorSet, *, absent: Collection[str] = ()
    ) -> Commit:
        """The commit over a block: every validator that is not absent votes at its own time."""
        commit = Commit(header.height, 0, block_id, ())
        encoder = VoteEncoder(header.chain_id, commit)
        votes = []
        for slot, member in enumerate(validators.validators):
            name = self._names[member.key.data]
            if name in absent or name in self.absent:
                votes.append(CommitSig(Flag.ABSENT))
                continue
            time_ns = header.time_ns + VOTE_DELAY_NS + slot * VOTE_STEP_NS
            signature = self._get_key(name).sign(encoder.encode(Flag.COMMIT, time_ns)).signature
            votes.append(CommitSig(Flag.COMMIT, compute_address(member.key), time_ns, signature))
        return replace(commit, signatures=tuple(votes))

    def append(self, block: CometBlock) -> CometBlock:
        """Let a block join the chain; a change of validators that was asked for takes its course."""
        if block.height != len(self.blocks) + 1:
            raise ValueError("a block of another height")
        self.blocks.append(block)
        self._sets[block.height + 2] = self.make_set(self.powers)
        return block


def encode_block(header: Header, transactions: Sequence[bytes], last_commit: Commit) -> bytes:
    """The bytes of tendermint.types.Block without evidence: what is cut into parts for gossip."""
    return b"".join(
        (
            encode_message(1, encode_header(header)),
            encode_message(2, b"".join(encode_message(1, raw) for raw in transactions)),
            encode_message(3, b""),
            encode_message(4, encode_commit(last_commit)),
        )
    )


def compute_parts(block: bytes) -> PartSetHeader:
    """The part-set header of a block's bytes."""
    parts = [block[at : at + PART_BYTES] for at in range(0, len(block), PART_BYTES)]
    return PartSetHeader(len(parts), compute_merkle_root(parts))


def compute_results_hash(results: Sequence[tuple[int, bytes, int, int]]) -> bytes:
    """The hash of a block's results: (code, data, gas wanted, gas used) each; what is not deterministic is not under it."""
    return compute_merkle_root(
        [
            encode_integer(1, code) + encode_bytes(2, data) + encode_integer(5, wanted) + encode_integer(6, used)
            for code, data, wanted, used in results
        ]
    )
