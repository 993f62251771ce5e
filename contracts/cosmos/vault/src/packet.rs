//! IBC v2 packets, the outbox, digests and signatures (protocol.md 2 and 3; IBC v2 packet commitments; EIP-712).

use cosmwasm_std::{Api, Binary, Event, Storage};

use crate::error::{fail, require, Result};
use crate::msg::to_hex;
use crate::state::{load_config, load_cursors, load_head, save_cursors, save_head, save_packet};
use crate::values::{keccak, sha256, word_of, Address, Word, CLEARING, DAY, ENCODING, HALF_ORDER, PORT, VERSION};

/// CAIP-2 name of a chain: "cosmos:" and its chain id, or the first 8 bytes of the id's SHA-256 if CAIP-5 asks for it.
pub fn compute_caip2(chain_id: &str) -> String {
    let is_plain = !chain_id.is_empty()
        && chain_id.len() <= 32
        && chain_id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        && !chain_id.starts_with("hashed-");
    if is_plain {
        format!("cosmos:{chain_id}")
    } else {
        format!("cosmos:hashed-{}", to_hex(&sha256(&[chain_id.as_bytes()])[..8]))
    }
}

/// keccak256( keccak256(CAIP-2) || vault account )
pub fn compute_vault_id(chain_id: &str, account: &Word) -> Word {
    keccak(&[&keccak(&[compute_caip2(chain_id).as_bytes()]), account])
}

/// IBC v2 client id that stands for a vault.
pub fn compute_client(vault_id: &Word) -> String {
    format!("vault-{}", to_hex(&vault_id[..8]))
}

/// IBC v2 packet commitment of a packet with one payload of this protocol.
pub fn compute_commitment(destination_client: &str, timeout: u64, value: &[u8]) -> Word {
    let port = sha256(&[PORT.as_bytes()]);
    let version = sha256(&[VERSION.as_bytes()]);
    let encoding = sha256(&[ENCODING.as_bytes()]);
    let payload = sha256(&[&port, &port, &version, &encoding, &sha256(&[value])]);
    let destination = sha256(&[destination_client.as_bytes()]);
    sha256(&[&[2], &destination, &sha256(&[&timeout.to_be_bytes()]), &sha256(&[&payload])])
}

/// head_n = keccak256( head_{n-1} || BE8(n) || commitment_n )
pub fn compute_next_head(head: &Word, sequence: u64, commitment: &Word) -> Word {
    keccak(&[head, &sequence.to_be_bytes(), commitment])
}

fn event(name: &str, sequence: u64, timeout: u64, source: &str, destination: &str, value: &[u8]) -> Event {
    Event::new(name)
        .add_attribute("sequence", sequence.to_string())
        .add_attribute("timeout", timeout.to_string())
        .add_attribute("source_client", source)
        .add_attribute("destination_client", destination)
        .add_attribute("value", Binary::new(value.to_vec()).to_base64())
}

/// The event of an accepted inbox packet.
pub fn inbox_event(sequence: u64, timeout: u64, client: &str, value: &[u8]) -> Event {
    event("optsettle_in", sequence, timeout, client, CLEARING, value)
}

/// The only way a packet leaves the vault. Returns the new outbox head and the event that carries the packet.
pub fn emit(s: &mut dyn Storage, now: u64, value: &[u8]) -> Result<(Word, Event)> {
    let client = compute_client(&load_config(s).vault_id);
    let mut cursors = load_cursors(s);
    cursors.outbox_sequence = cursors.outbox_sequence.checked_add(1).ok_or_else(|| fail("sequence"))?;
    save_cursors(s, &cursors);
    let sequence = cursors.outbox_sequence;
    let timeout = now.checked_add(DAY).ok_or_else(|| fail("timeout"))?;
    let head = compute_next_head(&load_head(s), sequence, &compute_commitment(&client, timeout, value));
    save_head(s, &head);
    save_packet(s, sequence, timeout, value);
    let out = event("optsettle_out", sequence, timeout, CLEARING, &client, value).add_attribute("head", to_hex(&head));
    Ok((head, out))
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
    let parts = [&kind[..], &word_of(epoch.into()), &word_of(sequence.into()), commitment];
    compute_digest(vault_id, &keccak(&parts))
}

/// Digest that one operator signs to pause.
pub fn compute_pause_digest(vault_id: &Word, epoch: u64) -> Word {
    let kind = keccak(&[b"Pause(uint64 operatorEpoch)"]);
    compute_digest(vault_id, &keccak(&[&kind, &word_of(epoch.into())]))
}

/// Signer of r || s || v with v 27 or 28 and low s; everything else is an error.
pub fn recover(api: &dyn Api, digest: &Word, signature: &[u8]) -> Result<Address> {
    require(signature.len() == 65, "signatures")?;
    require(signature[32..64] <= HALF_ORDER[..], "signatures")?;
    let parity = match signature[64] {
        27 => 0,
        28 => 1,
        _ => return Err(fail("signatures")),
    };
    let point = api.secp256k1_recover_pubkey(digest, &signature[..64], parity).map_err(|_| fail("signatures"))?;
    require(point.len() == 65 && point[0] == 4, "signatures")?;
    let address: Address = keccak(&[&point[1..]])[12..].try_into().expect("20 bytes");
    require(address != [0; 20], "signatures")?;
    Ok(address)
}
