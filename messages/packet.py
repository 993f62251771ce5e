"""IBC v2 packets: structure, commitments, paths and the three encodings (reference ibc-v2.md 1 to 5).

Pure. Every decoder is strict: bounded before it allocates, and what it read is encoded again and compared, so that one
packet has exactly one accepted byte string per encoding (incident class A11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from messages.errors import Rejected
from messages.hashing import keccak256, sha256

MAX_VALUE_BYTES = 262_144  # payload bytes of a packet in total (ibc-go)
MAX_TEXT_BYTES = 128  # client ids, ports, version, encoding
MAX_PAYLOADS = 16
MAX_PACKET_BYTES = MAX_VALUE_BYTES + 16_384
MAX_ACKS = 16
UINT64_MAX = 2**64 - 1

UNIVERSAL_ERROR_ACK = sha256(b"UNIVERSAL_ERROR_ACKNOWLEDGEMENT")
COSMOS_RECEIPT = b"\x02"

# ERC-7201 base slot of the namespace "ibc.storage.IBCStore"
EVM_STORE_BASE = (
    int.from_bytes(
        keccak256((int.from_bytes(keccak256(b"ibc.storage.IBCStore"), "big") - 1).to_bytes(32, "big")), "big"
    )
    & ~0xFF
).to_bytes(32, "big")


@dataclass(frozen=True, slots=True)
class Payload:
    """One application message."""

    source_port: str
    destination_port: str
    version: str
    encoding: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Packet:
    """An IBC v2 packet; ``timeout_timestamp`` in unix seconds."""

    sequence: int
    source_client: str
    destination_client: str
    timeout_timestamp: int
    payloads: tuple[Payload, ...]


# ---- commitments ------------------------------------------------------------------------------------------------------


def _encode_text(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise Rejected("a lone surrogate is no character", reason="bad_packet") from error
    if len(data) > MAX_TEXT_BYTES:
        raise Rejected("a text of the packet is too long", got=len(data), expected=MAX_TEXT_BYTES, reason="bad_packet")
    return data


@lru_cache(maxsize=256)
def _hash_text(text: str) -> bytes:
    # ports, versions, encodings and client ids repeat in every packet
    return sha256(_encode_text(text))


@lru_cache(maxsize=256)
def _join_text_hashes(source_port: str, destination_port: str, version: str, encoding: str) -> bytes:
    return _hash_text(source_port) + _hash_text(destination_port) + _hash_text(version) + _hash_text(encoding)


def compute_payload_hash(payload: Payload) -> bytes:
    """Return H(H(source port) || H(destination port) || H(version) || H(encoding) || H(value)), 32 bytes."""
    return sha256(
        _join_text_hashes(payload.source_port, payload.destination_port, payload.version, payload.encoding)
        + sha256(payload.value)
    )


def compute_commitment(packet: Packet) -> bytes:
    """Return the 32-byte packet commitment (ibc-v2.md 2; timeout big-endian; source client and sequence are not in it).

    Rejected ("bad_packet") without payloads, with a text beyond its limit or with a timeout that is no u64.
    """
    if not packet.payloads:
        raise Rejected("a packet needs a payload", reason="bad_packet")
    timeout = _encode_u64(packet.timeout_timestamp)
    payloads = sha256(b"".join(map(compute_payload_hash, packet.payloads)))
    return sha256(b"\x02" + _hash_text(packet.destination_client) + sha256(timeout) + payloads)


def compute_ack_commitment(acknowledgements: Sequence[bytes]) -> bytes:
    """Return H(02 || H(ack1) || H(ack2) ...), 32 bytes; Rejected ("bad_ack") without an ack (ibc-v2.md 2)."""
    if not acknowledgements:
        raise Rejected("an acknowledgement is never empty", reason="bad_ack")
    return sha256(b"\x02" + b"".join(map(sha256, acknowledgements)))


def _encode_u64(number: int) -> bytes:
    if not 0 <= number <= UINT64_MAX:
        raise Rejected("not a u64", got=number, reason="bad_packet")
    return number.to_bytes(8, "big")


# ---- paths ------------------------------------------------------------------------------------------------------------


def _path(client: str, tag: bytes, sequence: int) -> bytes:
    if sequence == 0:
        raise Rejected("packet sequences start at 1", got=sequence, reason="bad_packet")
    return _encode_text(client) + tag + _encode_u64(sequence)


def get_packet_commitment_path(source_client: str, sequence: int) -> bytes:
    """Return source client || 01 || BE8(sequence) (ibc-v2.md 3)."""
    return _path(source_client, b"\x01", sequence)


def get_packet_receipt_path(destination_client: str, sequence: int) -> bytes:
    """Return destination client || 02 || BE8(sequence) (ibc-v2.md 3)."""
    return _path(destination_client, b"\x02", sequence)


def get_packet_ack_path(destination_client: str, sequence: int) -> bytes:
    """Return destination client || 03 || BE8(sequence) (ibc-v2.md 3)."""
    return _path(destination_client, b"\x03", sequence)


def compute_evm_storage_slot(path: bytes, base: bytes = EVM_STORE_BASE) -> bytes:
    """Return K(K(path) || base): the slot of ``path`` in the router's mapping (ibc-v2.md 3)."""
    return keccak256(keccak256(path) + base)


def compute_evm_receipt(packet: Packet) -> bytes:
    """Return the receipt value of an EVM router: K(abi.encode(packet))."""
    return keccak256(encode_packet_abi(packet))


def compute_solana_receipt(packet: Packet) -> bytes:
    """Return the receipt value of the Solana router: K(borsh(packet))."""
    return keccak256(encode_packet_borsh(packet))


# ---- shared limits ----------------------------------------------------------------------------------------------------


def _malformed(what: str, got: object = None, expected: object = None) -> Rejected:
    return Rejected(what, got=got, expected=expected, reason="malformed")


def _verify_size(data: bytes) -> None:
    if len(data) > MAX_PACKET_BYTES:
        raise Rejected("packet too large", got=len(data), expected=f"<= {MAX_PACKET_BYTES}", reason="size")


def _decode_text(data: bytes) -> str:
    if len(data) > MAX_TEXT_BYTES:
        raise _malformed("text too long", got=len(data), expected=f"<= {MAX_TEXT_BYTES}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _malformed("text is not UTF-8", got=data) from error


def verify_packet_limits(packet: Packet) -> None:
    """Check counts, widths and sizes of a packet from outside; Rejected ("bad_packet")."""
    if not 0 < packet.sequence <= UINT64_MAX or not 0 <= packet.timeout_timestamp <= UINT64_MAX:
        raise Rejected("sequence or timeout out of range", got=packet.sequence, reason="bad_packet")
    if not 1 <= len(packet.payloads) <= MAX_PAYLOADS:
        raise Rejected("number of payloads", got=len(packet.payloads), reason="bad_packet")
    _hash_text(packet.source_client)  # raises on a bad text; every text is hashed for the commitment anyway
    _hash_text(packet.destination_client)
    for p in packet.payloads:
        _join_text_hashes(p.source_port, p.destination_port, p.version, p.encoding)
    if sum(len(p.value) for p in packet.payloads) > MAX_VALUE_BYTES:
        raise Rejected("payload bytes in total", expected=f"<= {MAX_VALUE_BYTES}", reason="bad_packet")


# ---- Solidity ABI -----------------------------------------------------------------------------------------------------


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _abi_bytes(data: bytes) -> bytes:
    return _word(len(data)) + data + bytes(-len(data) % 32)


def _abi_tuple(parts: Sequence[int | bytes]) -> bytes:
    """Join a tuple: an int is a static word, bytes are an encoded dynamic field reached by an offset."""
    head: list[bytes] = []
    at = 32 * len(parts)
    for part in parts:
        head.append(_word(part if isinstance(part, int) else at))
        at += 0 if isinstance(part, int) else len(part)
    return b"".join(head) + b"".join(p for p in parts if isinstance(p, bytes))


# With one payload, all of the encoding but sequence, timeout and value follows from the packet's texts: its frame. Texts repeat in every
# packet of a vault, so frames are remembered, and a packet is three words between them.
_MAX_FRAME_BYTES = 4096


@lru_cache(maxsize=256)
def _build_frame(
    source_client: str, destination_client: str, source_port: str, destination_port: str, version: str, encoding: str
) -> tuple[bytes, bytes, bytes]:
    """Return what stands before the sequence, between it and the timeout, and from there to the length of the value."""
    payload = Payload(source_port, destination_port, version, encoding, b"")
    data = _encode_whole(Packet(0, source_client, destination_client, 0, (payload,)))
    return data[:32], data[64:128], data[160:-32]


@lru_cache(maxsize=256)
def _decode_frame(first: bytes, second: bytes, third: bytes) -> tuple[str, str, str, str, str, str]:
    """Return the texts whose frame this is (`_build_frame`); Rejected ("malformed") if it is none."""
    packet = _decode_whole(first + _word(1) + second + _word(0) + third + _word(0))
    if len(packet.payloads) != 1:
        raise _malformed("a frame is of one payload", got=len(packet.payloads))
    p = packet.payloads[0]
    texts = (
        packet.source_client,
        packet.destination_client,
        p.source_port,
        p.destination_port,
        p.version,
        p.encoding,
    )
    if _build_frame(*texts) != (first, second, third):
        raise _malformed("not the frame of a packet")
    return texts


def encode_packet_abi(packet: Packet) -> bytes:
    """Return abi.encode(packet) with the leading offset word (ibc-v2.md 1); Rejected ("bad_packet") on limits."""
    verify_packet_limits(packet)
    if len(packet.payloads) != 1:
        return _encode_whole(packet)
    p = packet.payloads[0]
    first, second, third = _build_frame(
        packet.source_client, packet.destination_client, p.source_port, p.destination_port, p.version, p.encoding
    )
    parts = (first, _word(packet.sequence), second, _word(packet.timeout_timestamp), third, _abi_bytes(p.value))
    return b"".join(parts)


def _encode_whole(packet: Packet) -> bytes:
    payloads = [
        _abi_tuple(
            [_abi_bytes(t.encode()) for t in (p.source_port, p.destination_port, p.version, p.encoding)]
            + [_abi_bytes(p.value)]
        )
        for p in packet.payloads
    ]
    return _word(32) + _abi_tuple(
        [
            packet.sequence,
            _abi_bytes(packet.source_client.encode()),
            _abi_bytes(packet.destination_client.encode()),
            packet.timeout_timestamp,
            _word(len(payloads)) + _abi_tuple(payloads),
        ]
    )


class _AbiReader:
    """Reads words relative to a base, never past the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self, at: int, limit: int) -> int:
        word = self.data[at : at + 32]
        number = int.from_bytes(word, "big")
        if len(word) != 32 or number > limit:
            raise _malformed("a word is missing or out of range", got=number, expected=f"<= {limit}")
        return number

    def follow(self, base: int, index: int) -> int:
        return base + self.number(base + 32 * index, len(self.data))

    def dynamic(self, at: int, limit: int) -> bytes:
        size = self.number(at, limit)
        out = self.data[at + 32 : at + 32 + size]
        if len(out) != size:
            raise _malformed("bytes run past the end", got=len(out), expected=size)
        return out

    def text(self, base: int, index: int) -> str:
        return _decode_text(self.dynamic(self.follow(base, index), MAX_TEXT_BYTES))


def decode_packet_abi(data: bytes) -> Packet:
    """Return the packet of its one canonical ABI encoding; Rejected ("malformed" or "size") otherwise."""
    _verify_size(data)
    packet = _decode_framed(data)
    if packet is not None:
        return packet
    packet = _decode_whole(data)
    return _compare(packet, encode_packet_abi(packet), data)


def _decode_framed(data: bytes) -> Packet | None:
    """Return a packet of one payload whose frame is sound and whose rest is canonical; None for whatever needs a closer look."""
    try:
        read = _AbiReader(data)
        elements = read.follow(32, 4) + 32
        at = read.follow(read.follow(elements, 0), 4)
        if at > _MAX_FRAME_BYTES:
            return None
        texts = _decode_frame(data[:32], data[64:128], data[160:at])
        sequence, timeout, value = (
            read.number(32, UINT64_MAX),
            read.number(128, UINT64_MAX),
            read.dynamic(at, MAX_VALUE_BYTES),
        )
    except Rejected:
        return None
    if sequence == 0 or data[at:] != _abi_bytes(value):
        return None
    return Packet(sequence, texts[0], texts[1], timeout, (Payload(*texts[2:], value),))


def _decode_whole(data: bytes) -> Packet:
    read = _AbiReader(data)
    base = read.follow(0, 0)
    array = read.follow(base, 4)
    count = read.number(array, MAX_PAYLOADS)
    payloads: list[Payload] = []
    for i in range(count):
        at = read.follow(array + 32, i)
        value = read.dynamic(read.follow(at, 4), MAX_VALUE_BYTES)
        payloads.append(Payload(read.text(at, 0), read.text(at, 1), read.text(at, 2), read.text(at, 3), value))
    return Packet(
        read.number(base, UINT64_MAX),
        read.text(base, 1),
        read.text(base, 2),
        read.number(base + 96, UINT64_MAX),
        tuple(payloads),
    )


def _compare(packet: Packet, again: bytes, data: bytes) -> Packet:
    if again != data:
        raise _malformed("not the canonical encoding of a packet")
    return packet


# ---- protobuf (ibc.core.channel.v2) -----------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _proto_bytes(field: int, data: bytes) -> bytes:
    # proto3 leaves out default values
    return bytes([field << 3 | 2]) + _varint(len(data)) + data if data else b""


def _proto_uint(field: int, number: int) -> bytes:
    return bytes([field << 3]) + _varint(number) if number else b""


def _encode_payload_protobuf(p: Payload) -> bytes:
    texts = (p.source_port, p.destination_port, p.version, p.encoding)
    return b"".join(_proto_bytes(i, t.encode()) for i, t in enumerate(texts, 1)) + _proto_bytes(5, p.value)


def encode_packet_protobuf(packet: Packet) -> bytes:
    """Return the deterministic protobuf of a packet (fields ascending, defaults left out); Rejected on limits."""
    verify_packet_limits(packet)
    out = [
        _proto_uint(1, packet.sequence),
        _proto_bytes(2, packet.source_client.encode()),
        _proto_bytes(3, packet.destination_client.encode()),
        _proto_uint(4, packet.timeout_timestamp),
    ]
    for p in packet.payloads:
        data = _encode_payload_protobuf(p)
        out.append(b"\x2a" + _varint(len(data)) + data)  # an element of a list is written even when empty
    return b"".join(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for i in range(10):
        if at + i >= len(data):
            raise _malformed("a varint is cut off")
        byte = data[at + i]
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if number > UINT64_MAX or (byte == 0 and i):
                raise _malformed("a varint is too long", got=number)
            return number, at + i + 1
    raise _malformed("a varint is too long")


def _read_proto(data: bytes, kinds: dict[int, int], max_fields: int) -> list[tuple[int, int | bytes]]:
    """Return (field, value) pairs in order; only the named fields with their wire types (0 varint, 2 bytes)."""
    out: list[tuple[int, int | bytes]] = []
    at, last = 0, 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        field = tag >> 3
        if kinds.get(field) != tag & 7 or field < last or len(out) >= max_fields:
            raise _malformed("unknown, misplaced or too many fields", got=tag)
        last = field
        number, at = _read_varint(data, at)
        if tag & 7 == 0:
            out.append((field, number))
            continue
        if number > len(data) - at:
            raise _malformed("a field runs past the end", got=number)
        out.append((field, data[at : at + number]))
        at += number
    return out


def _text_of(fields: dict[int, int | bytes], field: int) -> str:
    value = fields.get(field, b"")
    return _decode_text(value) if isinstance(value, bytes) else ""


def _decode_payload_protobuf(data: bytes) -> Payload:
    fields = dict(_read_proto(data, dict.fromkeys(range(1, 6), 2), 5))
    value = fields.get(5, b"")
    texts = [_text_of(fields, i) for i in range(1, 5)]
    return Payload(texts[0], texts[1], texts[2], texts[3], value if isinstance(value, bytes) else b"")


def decode_packet_protobuf(data: bytes) -> Packet:
    """Return the packet of its one deterministic protobuf; Rejected ("malformed" or "size") otherwise.

    Unknown fields, repeated scalars, default values written out and fields out of order are refused.
    """
    _verify_size(data)
    pairs = _read_proto(data, {1: 0, 2: 2, 3: 2, 4: 0, 5: 2}, 4 + MAX_PAYLOADS)
    fields = dict(pairs)
    sequence, timeout = fields.get(1, 0), fields.get(4, 0)
    payloads = tuple(_decode_payload_protobuf(v) for f, v in pairs if f == 5 and isinstance(v, bytes))
    packet = Packet(
        sequence if isinstance(sequence, int) else 0,
        _text_of(fields, 2),
        _text_of(fields, 3),
        timeout if isinstance(timeout, int) else 0,
        payloads,
    )
    return _compare(packet, encode_packet_protobuf(packet), data)


def encode_ack_protobuf(acknowledgements: Sequence[bytes]) -> bytes:
    """Return the protobuf of an Acknowledgement (field 1, repeated bytes); Rejected ("bad_ack") on limits."""
    if not 1 <= len(acknowledgements) <= MAX_ACKS or sum(map(len, acknowledgements)) > MAX_VALUE_BYTES:
        raise Rejected("number or size of acknowledgements", got=len(acknowledgements), reason="bad_ack")
    return b"".join(b"\x0a" + _varint(len(a)) + a for a in acknowledgements)


def decode_ack_protobuf(data: bytes) -> tuple[bytes, ...]:
    """Return the app acknowledgements of a deterministic protobuf; Rejected ("malformed", "size", "bad_ack")."""
    _verify_size(data)
    acks = tuple(v for _, v in _read_proto(data, {1: 2}, MAX_ACKS) if isinstance(v, bytes))
    if encode_ack_protobuf(acks) != data:
        raise _malformed("not the canonical encoding of an acknowledgement")
    return acks


# ---- borsh ------------------------------------------------------------------------------------------------------------


def _borsh_bytes(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def encode_packet_borsh(packet: Packet) -> bytes:
    """Return the borsh encoding of a packet (ibc-v2.md 1); Rejected ("bad_packet") on limits."""
    verify_packet_limits(packet)
    out = [
        packet.sequence.to_bytes(8, "little"),
        _borsh_bytes(packet.source_client.encode()),
        _borsh_bytes(packet.destination_client.encode()),
        packet.timeout_timestamp.to_bytes(8, "little"),
        len(packet.payloads).to_bytes(4, "little"),
    ]
    for p in packet.payloads:
        out += [_borsh_bytes(t.encode()) for t in (p.source_port, p.destination_port, p.version, p.encoding)]
        out.append(_borsh_bytes(p.value))
    return b"".join(out)


class _BorshReader:
    """Reads forward, never past the end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        out = self.data[self.at : self.at + size]
        if len(out) != size:
            raise _malformed("the data end too early", got=len(out), expected=size)
        self.at += size
        return out

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def dynamic(self, limit: int) -> bytes:
        size = self.number(4)
        if size > limit:
            raise _malformed("a field is too long", got=size, expected=f"<= {limit}")
        return self.take(size)

    def text(self) -> str:
        return _decode_text(self.dynamic(MAX_TEXT_BYTES))


def decode_packet_borsh(data: bytes) -> Packet:
    """Return the packet of its borsh encoding; Rejected ("malformed" or "size") otherwise."""
    _verify_size(data)
    read = _BorshReader(data)
    sequence, source, destination, timeout = read.number(8), read.text(), read.text(), read.number(8)
    count = read.number(4)
    if count > MAX_PAYLOADS:
        raise _malformed("number of payloads", got=count, expected=f"<= {MAX_PAYLOADS}")
    payloads = tuple(
        Payload(read.text(), read.text(), read.text(), read.text(), read.dynamic(MAX_VALUE_BYTES)) for _ in range(count)
    )
    packet = Packet(sequence, source, destination, timeout, payloads)
    return _compare(packet, encode_packet_borsh(packet), data)
