//! Vault of optsettle-1 on Solana: escrow and certified ledger of cash and option positions on one chain.
//!
//! One program serves many vaults; a vault is a state account with its records. It has no owner: it does what a
//! certified packet says, inside its own invariants. The rules and the order of checks are protocol.md 2 to 4 and
//! vault.md, the same to the byte as in the vaults of the other families. Arithmetic is checked (`overflow-checks`), so
//! what the bounds in the code do not exclude aborts; products are written as wrapping on bounded numbers, because the
//! machine has no wide one.

#![no_std]

mod abi;
mod calls;
mod host;
mod packet;
mod records;
mod recv;
mod state;
mod system;
mod values;

use pinocchio::{error::ProgramError, nostd_panic_handler, program_entrypoint, AccountView, Address, ProgramResult};

use crate::abi::Reader;
use crate::calls::Call;
use crate::state::load_state;
use crate::values::{require, Fail, Result};

program_entrypoint!(process, { recv::MAX_ACCOUNTS });
nostd_panic_handler!();

fn process(program: &Address, accounts: &mut [AccountView], data: &[u8]) -> ProgramResult {
    run(program, accounts, data).map_err(|fail| ProgramError::Custom(fail as u32))
}

/// Run one instruction; its first byte says which.
fn run(program: &Address, accounts: &[AccountView], data: &[u8]) -> Result<()> {
    let mut r = Reader::new(data);
    let kind = r.byte()?;
    let first = accounts.first().ok_or(Fail::State)?;
    if kind == system::EVENT {
        // an event says nothing but that this program sent it: only it can sign for the state of a vault
        load_state(first, program)?;
        return require(first.is_signer() && accounts.len() == 1, Fail::Forged);
    }
    let now = host::get_time()?;
    if kind == 0 {
        return calls::create_vault(program, accounts, now, &mut r);
    }
    let state = load_state(first, program)?;
    state.apply_due_changes(now);
    if kind == 12 {
        return recv::recv(program, accounts, state, now, &mut r);
    }
    let mut call = Call { program, accounts, state, now };
    let c = &mut call;
    match kind {
        1 => calls::open(c, &mut r),
        2 => calls::deposit(c, &mut r),
        3 => calls::link(c, &mut r),
        4 => calls::list_series(c, &mut r),
        5 => calls::offer(c, &mut r),
        6 => calls::cancel(c, &mut r),
        7 => calls::take(c, &mut r),
        8 => calls::request_withdrawal(c, &mut r),
        9 => calls::claim(c, &mut r),
        10 => calls::escape(c, &mut r),
        11 => calls::pause(c, &mut r),
        _ => Err(Fail::Malformed),
    }
}
