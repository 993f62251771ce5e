//! The vault's state account: one fixed little-endian layout, read in place.
//!
//! `outbox_sequence` is at byte 8 and `outbox_head` at byte 16: one read of this account and the Clock is an observation.

use pinocchio::{AccountView, Address as Key};

use crate::values::{require, Address, Fail, Result, Word, MAX_OPERATORS};

pub const MAGIC: [u8; 8] = *b"optsettl";
/// First seed of the address of a state account; then its creator, a number (8 bytes, little-endian) and the bump.
pub const SEED: &[u8] = b"vault";

/// One of the two sets of operators, with the treasurer that comes with it.
#[repr(C)]
pub struct OperatorSet {
    pub treasurer: Word,
    pub count: u64,
    pub addresses: [Address; MAX_OPERATORS],
}

impl OperatorSet {
    pub fn get_operators(&self) -> &[Address] {
        &self.addresses[..self.count as usize]
    }
}

#[repr(C)]
pub struct State {
    pub magic: [u8; 8],
    pub outbox_sequence: u64,
    pub outbox_head: Word,
    pub vault_id: Word,
    pub inbox_sequence: u64,
    /// Time of the last inbox packet, or of creation.
    pub accepted_at: u64,
    /// Every open trade with a packet number up to this is over.
    pub decided_upto: u64,
    pub offer_count: u64,
    pub delay: u64,
    pub creator: Word,
    pub number: [u8; 8],
    pub bump: u8,
    pub threshold: u8,
    /// Which of the two stored sets is in force.
    pub set: u8,
    pub paused: u8,
    /// Bit i: operator i of the set used its pause of this epoch.
    pub pause_used: u32,
    pub epoch: u64,
    /// The other set takes over; 0: nothing pending.
    pub pending_at: u64,
    pub pending_threshold: u64,
    /// 0: nothing pending.
    pub unpause_at: u64,
    pub sets: [OperatorSet; 2],
}

pub const STATE_BYTES: usize = core::mem::size_of::<State>();
const _: () = assert!(STATE_BYTES == 1080);
const _: () = assert!(core::mem::offset_of!(State, outbox_head) == 16);

impl State {
    /// Bring into force what is due at `now`: a change under delay needs no packet to come into force.
    pub fn apply_due_changes(&mut self, now: u64) {
        if self.pending_at != 0 && now >= self.pending_at {
            self.threshold = self.pending_threshold as u8;
            self.set = 1 - self.set;
            self.epoch += 1;
            self.pause_used = 0;
            self.pending_at = 0;
            self.pending_threshold = 0;
        }
        if self.unpause_at != 0 && now >= self.unpause_at {
            self.paused = 0;
            self.unpause_at = 0;
        }
    }

    pub fn get_set(&self) -> &OperatorSet {
        &self.sets[usize::from(self.set)]
    }
}

/// The state in an account of this program; STATE if it is none.
pub fn load_state(account: &AccountView, program: &Key) -> Result<&'static mut State> {
    require(account.owned_by(program) && account.data_len() == STATE_BYTES, Fail::State)?;
    let state = unsafe { cast_state(account) };
    require(state.magic == MAGIC, Fail::State)?;
    Ok(state)
}

/// The state in an account, whatever it holds.
///
/// # Safety
/// The account must be one of this program's with `STATE_BYTES` bytes, and no other reference to its data may be used
/// while the result is. The machine places account data on multiples of 8.
pub unsafe fn cast_state(account: &AccountView) -> &'static mut State {
    &mut *(account.data_ptr() as *mut State)
}
