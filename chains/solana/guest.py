"""The staked header chain of a guest program on Solana: headers signed by stake, epochs that rotate, values proven by a trie. Pure.

The upgrade path of this family (trust tier 2): still the word of signers and not Solana's own consensus, but with stake weights, rotation,
a chain of headers and portable evidence. Where the published form is loose we are strict:
* an epoch signs for the heights of that epoch and no others: ``epoch_id`` must be the block that defined the epoch that is in force;
* more than two thirds of the stake must sign, not only the quorum that the epoch names;
* a zero state root is refused (the empty trie "proves" the absence of anything);
* expiry and a clock that runs ahead are judged at every update.
Every epoch's last header must be relayed: only it can hand over to the next epoch.

Source: ibc-v2.md 11. Signatures are ed25519 as Solana checks them: strict, small-order keys and points refused (libsodium does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from nacl.bindings import crypto_sign_open, crypto_sign_PUBLICKEYBYTES
from nacl.exceptions import BadSignatureError

from chains.solana.guest_trie import Node, verify_membership
from messages.errors import Conflict, Rejected

ZERO32 = bytes(32)
MAX_VALIDATORS = 256
UINT64_MAX = 2**64 - 1
UINT128_MAX = 2**128 - 1
HEADER_BYTES = (122, 154)
MAX_DRIFT_NS = 30 * 10**9


@dataclass(frozen=True)
class GuestHeader:
    """A block of the guest chain. ``host_height`` is Solana's slot; ``next_epoch_commitment`` stands in an epoch's last block only."""

    prev_block_hash: bytes
    block_height: int
    host_height: int
    timestamp_ns: int
    state_root: bytes
    epoch_id: bytes
    next_epoch_commitment: bytes | None = None


@dataclass(frozen=True)
class Stake:
    """A validator of an epoch: ed25519 key (32 bytes) and stake (u128, above 0)."""

    key: bytes
    amount: int


@dataclass(frozen=True)
class Epoch:
    """The validators that sign for a while, in the order that signatures count by, and the stake the chain calls a quorum."""

    validators: tuple[Stake, ...]
    quorum_stake: int


@dataclass(frozen=True)
class SignedHeader:
    """What is relayed: a header, the epoch that signs it, and (index of validator, 64-byte signature) pairs."""

    genesis_hash: bytes
    header: GuestHeader
    epoch: Epoch
    signatures: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class GuestTrusted:
    """What the client believes: the newest header and the epoch that signs the next one. Replaced, never mutated.

    ``signed_by``: id and commitment of the epoch that signed the newest header, where that is not the one in force.
    """

    genesis_hash: bytes
    header: GuestHeader
    block_hash: bytes
    epoch_id: bytes
    epoch_commitment: bytes
    trusting_period_ns: int
    signed_by: tuple[bytes, bytes] | None = None


# ---- bytes ------------------------------------------------------------------------------------------------------------


def encode_header(header: GuestHeader) -> bytes:
    """Borsh form, 122 or 154 bytes; Rejected ("malformed") if a field is out of its width or the time is 0."""
    for digest in (header.prev_block_hash, header.state_root, header.epoch_id, header.next_epoch_commitment or ZERO32):
        if len(digest) != 32:
            raise Rejected("a hash has 32 bytes", got=len(digest), expected=32, reason="malformed")
    for number in (header.block_height, header.host_height, header.timestamp_ns):
        if not 0 <= number <= UINT64_MAX:
            raise Rejected("heights and times are u64", got=number, reason="malformed")
    if header.timestamp_ns == 0:
        raise Rejected("a block has a time", got=0, reason="malformed")
    option = b"\0" if header.next_epoch_commitment is None else b"\1" + header.next_epoch_commitment
    numbers = b"".join(n.to_bytes(8, "little") for n in (header.block_height, header.host_height, header.timestamp_ns))
    return b"\0" + header.prev_block_hash + numbers + header.state_root + header.epoch_id + option


def decode_header(data: bytes) -> GuestHeader:
    """Read `encode_header`; Rejected ("malformed")."""
    if len(data) not in HEADER_BYTES or data[0] != 0 or data[121] != (len(data) == HEADER_BYTES[1]):
        raise Rejected("not a header of version 0", got=len(data), expected=HEADER_BYTES, reason="malformed")
    height, host, time = (int.from_bytes(data[at : at + 8], "little") for at in (33, 41, 49))
    found = GuestHeader(data[1:33], height, host, time, data[57:89], data[89:121], data[122:] or None)
    if encode_header(found) != data:
        raise Rejected("not the canonical encoding", got=len(data), reason="malformed")
    return found


def compute_block_hash(header: GuestHeader) -> bytes:
    """SHA-256 of the borsh form, 32 bytes."""
    return sha256(encode_header(header)).digest()


def compute_fingerprint(genesis_hash: bytes, header: GuestHeader) -> bytes:
    """The 72 bytes that validators sign: genesis hash, height (little-endian), block hash."""
    if len(genesis_hash) != 32:
        raise Rejected("a hash has 32 bytes", got=len(genesis_hash), expected=32, reason="malformed")
    return genesis_hash + header.block_height.to_bytes(8, "little") + compute_block_hash(header)


def encode_epoch(epoch: Epoch, key_bytes: int = crypto_sign_PUBLICKEYBYTES) -> bytes:
    """Borsh form; ``key_bytes`` is another width only in published vectors.

    Rejected ("bad_epoch"): empty, too many, a repeated key, a stake of 0, a quorum that the stakes can't reach.
    """
    validators = epoch.validators
    if not 0 < len(validators) <= MAX_VALIDATORS:
        raise Rejected(
            "an epoch of 1 or more validators",
            got=len(validators),
            expected=f"1 to {MAX_VALIDATORS}",
            reason="bad_epoch",
        )
    if len({stake.key for stake in validators}) != len(validators):
        raise Rejected("a validator stands twice", got=len(validators), reason="bad_epoch")
    parts = [b"\0", len(validators).to_bytes(4, "little")]
    for stake in validators:
        if len(stake.key) != key_bytes or not 0 < stake.amount <= UINT128_MAX:
            raise Rejected("a key and a stake above 0", got=stake.amount, reason="bad_epoch")
        parts += [b"\0", stake.key, stake.amount.to_bytes(16, "little")]
    if not 0 < epoch.quorum_stake <= sum(stake.amount for stake in validators) <= UINT128_MAX:
        raise Rejected("a quorum that the stakes can reach", got=epoch.quorum_stake, reason="bad_epoch")
    return b"".join([*parts, epoch.quorum_stake.to_bytes(16, "little")])


def compute_epoch_commitment(epoch: Epoch) -> bytes:
    """SHA-256 of `encode_epoch`, 32 bytes."""
    return sha256(encode_epoch(epoch)).digest()


# ---- what is believed -------------------------------------------------------------------------------------------------


def make_trusted(
    genesis_hash: bytes, header: GuestHeader, epoch_id: bytes, epoch_commitment: bytes, trusting_period_ns: int
) -> GuestTrusted:
    """Start from a header that people chose, with the epoch that signs after it. Rejected ("bad_config")."""
    if any(len(digest) != 32 or digest == ZERO32 for digest in (genesis_hash, epoch_id, epoch_commitment)):
        raise Rejected("hashes are 32 bytes that are not all zero", reason="bad_config")
    if header.state_root == ZERO32 or trusting_period_ns <= 0:
        raise Rejected("a state root and a trusting period are needed", got=trusting_period_ns, reason="bad_config")
    return GuestTrusted(
        genesis_hash, header, compute_block_hash(header), epoch_id, epoch_commitment, trusting_period_ns
    )


def is_fresh(trusted: GuestTrusted, now_ns: int) -> bool:
    """Whether the newest header is younger than the trusting period."""
    return now_ns < trusted.header.timestamp_ns + trusted.trusting_period_ns


def verify_header(trusted: GuestTrusted, signed: SignedHeader, now_ns: int) -> GuestTrusted:
    """The state after a later header of the epoch in force; the same state if it is the one that is known.

    Rejected: "wrong_genesis", "expired", "future", "zero_root", "old", "wrong_epoch" (another set, or an epoch that is over), "not_monotonic"
    (slot or time do not rise), "wrong_parent", and the reasons of `verify_stake`. Conflict ("two_headers"): another header at a known height.
    """
    header = signed.header
    if signed.genesis_hash != trusted.genesis_hash:
        raise Rejected("another chain", got=signed.genesis_hash, expected=trusted.genesis_hash, reason="wrong_genesis")
    if not is_fresh(trusted, now_ns):
        raise Rejected("the trusted header is too old", got=trusted.header.timestamp_ns, reason="expired")
    if header.timestamp_ns >= now_ns + MAX_DRIFT_NS:
        raise Rejected("a header of the future", got=header.timestamp_ns, expected=f"< {now_ns}", reason="future")
    if header.state_root == ZERO32:
        raise Rejected("the empty trie proves nothing", reason="zero_root")
    if header.block_height < trusted.header.block_height:
        raise Rejected(
            "a header of the past", got=header.block_height, expected=trusted.header.block_height, reason="old"
        )
    block_hash = compute_block_hash(header)
    if block_hash == trusted.block_hash:
        return trusted
    if header.block_height == trusted.header.block_height:
        # Only the stake that could have signed the known header makes a rival of it count.
        _verify_epoch(signed, *(trusted.signed_by or (trusted.epoch_id, trusted.epoch_commitment)))
        raise Conflict("two headers at one height", got=block_hash, expected=trusted.block_hash, reason="two_headers")
    _verify_epoch(signed, trusted.epoch_id, trusted.epoch_commitment)
    if header.host_height <= trusted.header.host_height or header.timestamp_ns <= trusted.header.timestamp_ns:
        raise Rejected("slot and time rise with the height", got=header.host_height, reason="not_monotonic")
    if header.block_height == trusted.header.block_height + 1 and header.prev_block_hash != trusted.block_hash:
        raise Rejected("not the child of the trusted block", got=header.prev_block_hash, reason="wrong_parent")
    after = replace(trusted, header=header, block_hash=block_hash, signed_by=None)
    if header.next_epoch_commitment is None:
        return after
    former = (trusted.epoch_id, trusted.epoch_commitment)
    return replace(after, epoch_id=block_hash, epoch_commitment=header.next_epoch_commitment, signed_by=former)


def _verify_epoch(signed: SignedHeader, epoch_id: bytes, commitment: bytes) -> None:
    header = signed.header
    if header.epoch_id != epoch_id:
        raise Rejected("not of the epoch in force", got=header.epoch_id, expected=epoch_id, reason="wrong_epoch")
    found = compute_epoch_commitment(signed.epoch)
    if found != commitment:
        raise Rejected("another set of validators", got=found, expected=commitment, reason="wrong_epoch")
    verify_stake(signed)


def verify_stake(signed: SignedHeader) -> None:
    """Check signatures until more than two thirds of the stake, and the epoch's quorum, have signed.

    Rejected: "bad_index" (out of range, or used twice), "bad_signature", "too_little_stake".
    """
    epoch = signed.epoch
    total = sum(stake.amount for stake in epoch.validators)
    message = compute_fingerprint(signed.genesis_hash, signed.header)
    seen: set[int] = set()
    power = 0
    if len(signed.signatures) > len(epoch.validators):
        raise Rejected("more signatures than validators", got=len(signed.signatures), reason="bad_index")
    for index, signature in signed.signatures:
        if not 0 <= index < len(epoch.validators) or index in seen:
            raise Rejected("no validator has this index, or it was used", got=index, reason="bad_index")
        seen.add(index)
        if not _is_signed(epoch.validators[index].key, message, signature):
            raise Rejected("a signature does not verify", got=index, reason="bad_signature")
        power += epoch.validators[index].amount
    if 3 * power <= 2 * total or power < epoch.quorum_stake:
        raise Rejected("too little stake signed", got=power, expected=f"> 2/3 of {total}", reason="too_little_stake")


def _is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    if len(signature) != 64:
        return False
    try:
        crypto_sign_open(signature + message, key)
    except BadSignatureError:
        return False
    return True


def verify_misbehaviour(
    genesis_hash: bytes, epoch_id: bytes, epoch_commitment: bytes, first: SignedHeader, second: SignedHeader
) -> None:
    """Check that one epoch signed two headers that exclude each other: portable, needs no client state.

    One height with two hashes, or heights in one order and times in the other. Rejected: "no_misbehaviour", and the reasons of an update.
    """
    for signed in (first, second):
        if signed.genesis_hash != genesis_hash:
            raise Rejected("another chain", got=signed.genesis_hash, expected=genesis_hash, reason="wrong_genesis")
        _verify_epoch(signed, epoch_id, epoch_commitment)
    a, b = sorted((first.header, second.header), key=lambda header: header.block_height)
    if a.block_height == b.block_height:
        if compute_block_hash(a) == compute_block_hash(b):
            raise Rejected("one header, shown twice", got=a.block_height, reason="no_misbehaviour")
        return
    if a.timestamp_ns < b.timestamp_ns and a.host_height < b.host_height:
        raise Rejected("the headers can both be true", got=a.block_height, reason="no_misbehaviour")


def verify_value(trusted: GuestTrusted, key: bytes, value_hash: bytes, proof: Sequence[Node]) -> None:
    """Check that the guest chain's store holds a value at the trusted header; Rejected as `guest_trie.verify_membership`."""
    verify_membership(trusted.header.state_root, key, value_hash, proof)
