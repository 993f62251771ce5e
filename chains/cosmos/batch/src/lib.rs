//! Asks of many ed25519 signatures at once whether all of them are valid under ZIP-215.
//!
//! The module imports nothing: it can reach no clock, no randomness and no network, and the same bytes give the same answer.
//!
//! A batch is one equation, each signature times a factor that whoever made the signatures could not know before they were made. The
//! factors come from a hash over all keys, signatures and messages, so they are fixed by what they judge and need no source of
//! randomness: to let a false signature through, its maker must hit one factor of 128 bits by trying whole batches.

use ed25519_zebra::{batch, Signature, VerificationKeyBytes};
use rand_core::{CryptoRng, RngCore};
use sha2::{Digest, Sha512};

const KEY: usize = 32;
const SIGNATURE: usize = 64;
const LENGTH: usize = 4;
const BLOCK: usize = 64;

/// Bytes of SHA-512(seed || counter), counter by counter.
struct Factors {
    seed: [u8; BLOCK],
    counter: u64,
    block: [u8; BLOCK],
    used: usize,
}

impl Factors {
    fn new(judged: &[u8]) -> Self {
        Self {
            seed: Sha512::digest(judged).into(),
            counter: 0,
            block: [0; BLOCK],
            used: BLOCK,
        }
    }
}

impl RngCore for Factors {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == BLOCK {
                let mut hash = Sha512::new();
                hash.update(self.seed);
                hash.update(self.counter.to_le_bytes());
                self.block = hash.finalize().into();
                self.counter += 1;
                self.used = 0;
            }
            *byte = self.block[self.used];
            self.used += 1;
        }
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for Factors {}

/// Give room for `size` bytes of input; the host writes there. An instance serves one call, so nothing is given back.
#[no_mangle]
pub extern "C" fn allocate(size: usize) -> *mut u8 {
    let mut room = Vec::<u8>::with_capacity(size);
    let start = room.as_mut_ptr();
    core::mem::forget(room);
    start
}

/// Return 1 if every signature is valid, 0 if one is not or the input is not a list of them.
///
/// Input: for each signature its key (32 bytes), itself (64), the length of the message (u32, little-endian) and the message.
///
/// # Safety
/// `start` and `size` name bytes that the host wrote into room from `allocate`.
#[no_mangle]
pub unsafe extern "C" fn verify(start: *const u8, size: usize) -> u32 {
    let judged = core::slice::from_raw_parts(start, size);
    let mut verifier = batch::Verifier::new();
    let mut rest = judged;
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_first_chunk::<KEY>() else {
            return 0;
        };
        let Some((signature, after)) = after.split_first_chunk::<SIGNATURE>() else {
            return 0;
        };
        let Some((length, after)) = after.split_first_chunk::<LENGTH>() else {
            return 0;
        };
        let length = u32::from_le_bytes(*length) as usize;
        if after.len() < length {
            return 0;
        }
        let (message, after) = after.split_at(length);
        verifier.queue((
            VerificationKeyBytes::from(*key),
            Signature::from(*signature),
            &message,
        ));
        rest = after;
    }
    u32::from(verifier.verify(Factors::new(judged)).is_ok())
}
