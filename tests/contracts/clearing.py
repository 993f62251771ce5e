"""The clearing's side of a vault under test, whatever the machine that runs it: packets for it, the operators' signatures, what an Ack says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from messages.bodies import (
    CLEARING_CLIENT,
    ENCODING,
    PACKET_LIFE_S,
    PORT,
    VERSION,
    Ack,
    InboxBody,
    decode_outbox_body,
    encode_body,
)
from messages.digests import compute_packet_digest, compute_pause_digest, get_address, sign_digest
from messages.ids import get_vault_client
from messages.packet import Packet, Payload, compute_commitment


class Clearing(ABC):
    """One vault with its operators' keys. Who inherits calls `begin` as soon as the vault's id is known."""

    time: int
    vault_id: bytes
    client: str

    def set_operators(self, keys: Sequence[bytes], threshold: int) -> None:
        """Know the keys that sign in `sign` and `recv`, in the order of their addresses."""
        self.operator_keys = sorted(keys, key=get_address)
        self.threshold = threshold
        self.epoch = 0

    def begin(self, vault_id: bytes) -> None:
        """Know a vault that has said and heard nothing yet."""
        self.vault_id = vault_id
        self.client = get_vault_client(vault_id)
        self.sequence = 0
        self.head: bytes = vault_id
        self.inbox_sequence = 0
        self.packets: list[Packet] = []

    @abstractmethod
    def bring(self, packet: Packet, signatures: Sequence[bytes]) -> Any:
        """Deliver a packet; check with `verify_answered` what must hold if it is accepted."""

    def make_outbox_packet(self, value: bytes) -> Packet:
        """Return the packet that the vault must have made of a value now."""
        payload = Payload(PORT, PORT, VERSION, ENCODING, value)
        return Packet(self.sequence, CLEARING_CLIENT, self.client, self.time + PACKET_LIFE_S, (payload,))

    def make_inbox_packet(self, body: InboxBody | bytes, timeout: int | None = None, sequence: int = 0) -> Packet:
        """Return the next packet for the vault, or one with another number."""
        value = body if isinstance(body, bytes) else encode_body(body)
        payload = Payload(PORT, PORT, VERSION, ENCODING, value)
        timeout = self.time + 1_800 if timeout is None else timeout
        return Packet(sequence or self.inbox_sequence + 1, self.client, CLEARING_CLIENT, timeout, (payload,))

    def sign(self, packet: Packet, keys: Sequence[bytes] | None = None) -> list[bytes]:
        """Return the signatures of ``keys`` (default: the first m operators)."""
        digest = compute_packet_digest(self.vault_id, self.epoch, packet.sequence, compute_commitment(packet))
        return [sign_digest(k, digest) for k in keys or self.operator_keys[: self.threshold]]

    def sign_pause(self, key: bytes) -> bytes:
        """Return one operator's pause."""
        return sign_digest(key, compute_pause_digest(self.vault_id, self.epoch))

    def verify_answered(self, packet: Packet, inbox: Packet | None, out: bytes | None) -> None:
        """Check that an accepted packet was told as it is, and answered by an Ack (``out``) of its number and commitment."""
        self.inbox_sequence += 1
        assert inbox == packet
        assert out is not None
        ack = decode_outbox_body(out)
        assert isinstance(ack, Ack)
        assert ack.inbox_sequence == self.inbox_sequence == packet.sequence
        assert ack.inbox_commitment == compute_commitment(packet)

    def recv(self, body: InboxBody | bytes, timeout: int | None = None) -> Any:
        """Certify and deliver the next inbox packet."""
        packet = self.make_inbox_packet(body, timeout)
        return self.bring(packet, self.sign(packet))
