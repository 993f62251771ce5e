//! IBC v2 packets, the outbox, digests and signatures (protocol.md 2 and 3; IBC v2 packet commitments; EIP-712).

use pinocchio::{AccountView, Address as Key};

use crate::abi::Writer;
use crate::host::recover_key;
use crate::state::State;
use crate::system::send_event;
use crate::values::{
    keccak, require, sha256, word_of, Address, Fail, Result, Word, DAY, ENCODING, HALF_ORDER, PORT, VERSION,
};

const OUT: u8 = 0;
const IN: u8 = 1;
/// Bytes of an event before the value: 255, direction, sequence, timeout (little-endian); outbound also the new head.
pub const IN_HEADER: usize = 18;
pub const OUT_HEADER: usize = 50;

/// IBC v2 client id that stands for a vault.
fn compute_client(vault_id: &Word) -> [u8; 22] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut client = *b"vault-0000000000000000";
    for (pair, byte) in client[6..].chunks_exact_mut(2).zip(vault_id) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    client
}

/// IBC v2 packet commitment of a packet with one payload of this protocol.
#[inline(always)] // more arguments than registers
pub fn compute_commitment(destination_client: &[u8], timeout: u64, value: &[u8]) -> Word {
    let port = sha256(&[PORT]);
    let payload = sha256(&[&port, &port, &sha256(&[VERSION]), &sha256(&[ENCODING]), &sha256(&[value])]);
    let destination = sha256(&[destination_client]);
    sha256(&[&[2], &destination, &sha256(&[&timeout.to_be_bytes()]), &sha256(&[&payload])])
}

fn write_header(event: &mut Writer, direction: u8, sequence: u64, timeout: u64) {
    event.put_header(&[crate::system::EVENT, direction], 0);
    event.put_header(&sequence.to_le_bytes(), 2);
    event.put_header(&timeout.to_le_bytes(), 10);
}

/// Send the event of an accepted inbox packet; `event` holds its value.
pub fn send_inbox_event(program: &Key, account: &AccountView, state: &State, event: &mut Writer, timeout: u64) {
    write_header(event, IN, state.inbox_sequence, timeout);
    send_event(program, account, state, event.get_event());
}

/// The only way a packet leaves the vault; `event` holds its value.
pub fn emit(program: &Key, account: &AccountView, state: &mut State, now: u64, event: &mut Writer) -> Result<()> {
    let sequence = state.outbox_sequence.checked_add(1).ok_or(Fail::Sequence)?;
    let timeout = now.checked_add(DAY).ok_or(Fail::Timeout)?;
    let commitment = compute_commitment(&compute_client(&state.vault_id), timeout, event.get_value());
    state.outbox_head = keccak(&[&state.outbox_head, &sequence.to_be_bytes(), &commitment]);
    state.outbox_sequence = sequence;
    write_header(event, OUT, sequence, timeout);
    event.put_header(&state.outbox_head, IN_HEADER);
    send_event(program, account, state, event.get_event());
    Ok(())
}

/// EIP-712 digest under the domain of a vault: name, version, salt = vault id.
fn compute_digest(vault_id: &Word, struct_hash: &Word) -> Word {
    let domain = keccak(&[
        &keccak(&[b"EIP712Domain(string name,string version,bytes32 salt)"]),
        &keccak(&[b"optsettle"]),
        &keccak(&[b"1"]),
        vault_id,
    ]);
    keccak(&[&[0x19, 0x01], &domain, struct_hash])
}

/// Digest that the operators sign for an inbox packet.
pub fn compute_packet_digest(vault_id: &Word, epoch: u64, sequence: u64, commitment: &Word) -> Word {
    let kind = keccak(&[b"Packet(uint64 operatorEpoch,uint64 sequence,bytes32 commitment)"]);
    compute_digest(vault_id, &keccak(&[&kind, &word_of(epoch), &word_of(sequence), commitment]))
}

/// Digest that one operator signs to pause.
pub fn compute_pause_digest(vault_id: &Word, epoch: u64) -> Word {
    let kind = keccak(&[b"Pause(uint64 operatorEpoch)"]);
    compute_digest(vault_id, &keccak(&[&kind, &word_of(epoch)]))
}

/// Signer of r || s || v with v 27 or 28 and low s; everything else is an error.
pub fn recover(digest: &Word, signature: &[u8; 65]) -> Result<Address> {
    require(signature[32..64] <= HALF_ORDER[..], Fail::Signatures)?;
    let parity = match signature[64] {
        27 => 0,
        28 => 1,
        _ => return Err(Fail::Signatures),
    };
    let mut rs = [0; 64];
    rs.copy_from_slice(&signature[..64]);
    let point = recover_key(digest, parity, &rs).ok_or(Fail::Signatures)?;
    let mut address: Address = [0; 20];
    address.copy_from_slice(&keccak(&[&point])[12..]);
    require(address != [0; 20], Fail::Signatures)?;
    Ok(address)
}

/// Exactly m signatures of distinct operators of the set in force, ascending by address.
pub fn verify_signatures(digest: &Word, signatures: &[[u8; 65]], state: &State) -> Result<()> {
    require(signatures.len() == usize::from(state.threshold), Fail::Signatures)?;
    let mut last: Address = [0; 20];
    for signature in signatures {
        let signer = recover(digest, signature)?;
        require(signer > last && state.get_set().get_operators().contains(&signer), Fail::Signatures)?;
        last = signer;
    }
    Ok(())
}
