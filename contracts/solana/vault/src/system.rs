//! Calls of other programs: the system program, the token program, and this one for events. All of them take the
//! transaction down when they fail.

use pinocchio::cpi::{invoke_signed_unchecked, CpiAccount, Seed, Signer};
use pinocchio::instruction::{InstructionAccount, InstructionView};
use pinocchio::{AccountView, Address as Key};

use crate::host::find_address;
use crate::state::{State, SEED};
use crate::values::{require, Fail, Result, Word};

const SYSTEM: Key = Key::new_from_array([0; 32]);
/// TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA
const TOKEN: Key = Key::new_from_array([
    0x06, 0xdd, 0xf6, 0xe1, 0xd7, 0x65, 0xa1, 0x93, 0xd9, 0xcb, 0xe1, 0x46, 0xce, 0xeb, 0x79, 0xac, 0x1c, 0xb4, 0x85,
    0xed, 0x5f, 0x5b, 0x37, 0x91, 0x3a, 0x8c, 0xf5, 0x85, 0x7e, 0xff, 0x00, 0xa9,
]);
/// ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL
const ASSOCIATED: Key = Key::new_from_array([
    0x8c, 0x97, 0x25, 0x8f, 0x4e, 0x24, 0x89, 0xf1, 0xbb, 0x3d, 0x10, 0x29, 0x14, 0x8e, 0x0d, 0x83, 0x0b, 0x5a, 0x13,
    0x99, 0xda, 0xff, 0x10, 0x84, 0x04, 0x8e, 0x7b, 0xd8, 0xdb, 0xe9, 0xf8, 0x59,
]);
const TOKEN_ACCOUNT_BYTES: usize = 165;
const MAX_SEEDS: usize = 5;

/// First byte of an event, which is an instruction of this program.
pub const EVENT: u8 = 255;

/// Call a program that everybody may call, with the signature of the address of `seeds`.
#[inline(always)] // more arguments than registers
fn call(program: &Key, data: &[u8], accounts: &[InstructionAccount<'_>], views: &[CpiAccount<'_>], seeds: &[&[u8]]) {
    let instruction = InstructionView { program_id: program, data, accounts };
    if seeds.is_empty() {
        unsafe { invoke_signed_unchecked(&instruction, views, &[]) };
        return;
    }
    let empty: &[u8] = &[];
    let mut list: [Seed<'_>; MAX_SEEDS] = core::array::from_fn(|_| Seed::from(empty));
    for (place, seed) in list.iter_mut().zip(seeds) {
        *place = Seed::from(*seed);
    }
    let signer = Signer::from(&list[..seeds.len()]);
    unsafe { invoke_signed_unchecked(&instruction, views, &[signer]) };
}

fn number_after<const N: usize>(kind: u8, number: u64) -> [u8; N] {
    let mut data = [0; N];
    data[0] = kind;
    data[4..12].copy_from_slice(&number.to_le_bytes());
    data
}

pub fn transfer_lamports(from: &AccountView, to: &AccountView, lamports: u64) {
    let accounts = [InstructionAccount::writable_signer(from.address()), InstructionAccount::writable(to.address())];
    call(&SYSTEM, &number_after::<12>(2, lamports), &accounts, &[from.into(), to.into()], &[]);
}

pub fn allocate(account: &AccountView, bytes: u64, seeds: &[&[u8]]) {
    let accounts = [InstructionAccount::writable_signer(account.address())];
    call(&SYSTEM, &number_after::<12>(8, bytes), &accounts, &[account.into()], seeds);
}

pub fn assign(account: &AccountView, owner: &Key, seeds: &[&[u8]]) {
    let accounts = [InstructionAccount::writable_signer(account.address())];
    let mut data = [0; 36];
    data[0] = 1;
    data[4..].copy_from_slice(owner.as_array());
    call(&SYSTEM, &data, &accounts, &[account.into()], seeds);
}

/// Send `data` as an instruction of this program that only the vault's state can have signed.
pub fn send_event(program: &Key, account: &AccountView, state: &State, data: &[u8]) {
    let accounts = [InstructionAccount::readonly_signer(account.address())];
    let bump = [state.bump];
    call(program, data, &accounts, &[account.into()], &[SEED, &state.creator, &state.number, &bump]);
}

/// A token account: what the classic token program wrote.
pub struct Token<'a>(&'a AccountView);

impl Token<'_> {
    fn get_word(&self, at: usize) -> &Word {
        unsafe { &*(self.0.data_ptr().add(at) as *const Word) }
    }

    pub fn get_amount(&self) -> u64 {
        unsafe { (self.0.data_ptr().add(64) as *const u64).read_unaligned() }
    }
}

/// The canonical token account of `owner` for a mint; TOKEN if `account` is not it, or belongs to somebody else now.
pub fn find_token<'a>(account: &'a AccountView, owner: &Word, mint: &Word) -> Result<Token<'a>> {
    require(account.owned_by(&TOKEN) && account.data_len() == TOKEN_ACCOUNT_BYTES, Fail::Token)?;
    let (address, _) = find_address(&[owner, TOKEN.as_array(), mint], &ASSOCIATED)?;
    let token = Token(account);
    let is_canonical = account.address().as_array() == &address;
    require(is_canonical && token.get_word(0) == mint && token.get_word(32) == owner, Fail::Token)?;
    Ok(token)
}

fn transfer(parts: [&AccountView; 4], amount: u64, seeds: &[&[u8]]) -> Result<()> {
    let [program, from, to, authority] = parts;
    require(program.address() == &TOKEN, Fail::Token)?;
    let accounts = [
        InstructionAccount::writable(from.address()),
        InstructionAccount::writable(to.address()),
        InstructionAccount::readonly_signer(authority.address()),
    ];
    let mut data = [0; 9];
    data[0] = 3;
    data[1..].copy_from_slice(&amount.to_le_bytes());
    call(&TOKEN, &data, &accounts, &[from.into(), to.into(), authority.into()], seeds);
    Ok(())
}

/// Move tokens of the caller, who signed the transaction. `parts`: token program, from, to, caller.
pub fn pull_tokens(parts: [&AccountView; 4], amount: u64) -> Result<()> {
    transfer(parts, amount, &[])
}

/// Move tokens of the vault. `parts`: token program, from, to, account of the vault's state.
pub fn pay_tokens(parts: [&AccountView; 4], amount: u64, state: &State) -> Result<()> {
    let bump = [state.bump];
    transfer(parts, amount, &[SEED, &state.creator, &state.number, &bump])
}
