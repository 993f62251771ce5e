//! Constants, words, hashes and the predicates on accounts and amounts (protocol.md 2 to 4, vault.md 1).

use crate::host;

/// Id of an account, an asset, a series, a portfolio, a trade or a request; a word of an encoding.
pub type Word = [u8; 32];
/// secp256k1 address of an operator.
pub type Address = [u8; 20];

pub const ZERO: Word = [0; 32];
/// keccak256("optsettle/house")
pub const HOUSE: Word = [
    0xdd, 0x43, 0xf5, 0xb4, 0x00, 0x46, 0x42, 0x8a, 0x4b, 0x3e, 0x2b, 0x7c, 0xa6, 0x76, 0xfa, 0x87, 0xfd, 0x9b, 0xbf,
    0xaf, 0x3c, 0x4e, 0xc0, 0xec, 0x07, 0x2d, 0x83, 0x26, 0xf6, 0x63, 0xfe, 0x41,
];
/// keccak256("optsettle/insurance")
pub const INSURANCE: Word = [
    0xd5, 0xe8, 0x7c, 0x0d, 0x3b, 0x54, 0x6f, 0xbf, 0x67, 0x68, 0xf0, 0xb1, 0x3f, 0x24, 0x97, 0xf6, 0xe6, 0x5a, 0x7c,
    0xf6, 0xf2, 0xa0, 0x01, 0x75, 0x70, 0xdc, 0x90, 0xff, 0x0a, 0x27, 0xcd, 0x32,
];

pub const CLEARING: &[u8] = b"optsettle-clearing";
pub const PORT: &[u8] = b"optsettle";
pub const VERSION: &[u8] = b"optsettle-1";
pub const ENCODING: &[u8] = b"application/x-solidity-abi";

pub const MAX_OPERATORS: usize = 20;
/// Legs of one Execute, and prices of one Execute.
pub const MAX_LEGS: usize = 32;

pub const HOUR: u64 = 3_600;
pub const DAY: u64 = 86_400;
/// How long the clearing must be silent before accounts may leave by themselves.
pub const ESCAPE_AFTER: u64 = 30 * DAY;
pub const LONGEST_SERIES: u64 = 400 * DAY;
pub const MAX_DELAY: u64 = u32::MAX as u64;

/// Largest strike and multiplier of a series: 2^96 - 1, the same on every chain.
pub const M96: u128 = (1 << 96) - 1;
/// 1e8 units of quantity are one contract.
pub const CONTRACT: u64 = 100_000_000;

/// Half of the order of secp256k1: the largest s that is accepted.
pub const HALF_ORDER: Word = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d, 0x57, 0x6e,
    0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

// kinds of outbox packets
pub const DEPOSITED: u64 = 1;
pub const LINKED: u64 = 2;
pub const SERIES_LISTED: u64 = 3;
pub const TRADE_PENDING: u64 = 4;
pub const WITHDRAWAL_REQUESTED: u64 = 5;
pub const CLAIMED: u64 = 6;
pub const PAUSED: u64 = 7;
pub const ESCAPED: u64 = 8;
pub const ACK: u64 = 16;
// kinds of inbox packets
pub const EXECUTE: u8 = 32;
pub const DECIDE_TRADES: u8 = 33;
pub const DECIDE_WITHDRAWALS: u8 = 34;
pub const ROTATE_OPERATORS: u8 = 35;
pub const SET_CAPS: u8 = 36;
pub const UNPAUSE: u8 = 37;

/// Status of an Ack.
pub const DONE: u64 = 1;
pub const REFUSED: u64 = 2;

/// Why a body was refused; the numbers are those of vault.md 3.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Reason {
    Paused = 1,
    LegKind = 2,
    Zero = 3,
    Range = 4,
    Account = 5,
    Order = 6,
    Asset = 7,
    Series = 8,
    Cash = 9,
    Direction = 10,
    Overflow = 11,
    Sum = 12,
    Cap = 13,
    Epoch = 14,
    Operators = 15,
    NotPaused = 16,
    Delay = 17,
}

/// Why an instruction fails: the custom error code of the transaction. The words are those of the other vaults.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Fail {
    Sequence = 1,
    Timeout = 3,
    Signatures = 4,
    /// The instruction cannot be read, or is longer or shorter than what it says.
    Malformed = 5,
    Paused = 6,
    Amount = 7,
    Asset = 8,
    Account = 9,
    Overflow = 10,
    Signature = 11,
    Expiry = 12,
    Definition = 13,
    Exists = 14,
    Side = 15,
    Series = 16,
    Expired = 17,
    Unknown = 18,
    Owner = 19,
    Closed = 20,
    SelfTrade = 21,
    Open = 22,
    Cash = 23,
    Used = 24,
    Early = 25,
    Positions = 26,
    Operators = 27,
    Caps = 28,
    Delay = 29,
    /// A record that is needed is not among the accounts, or is another one.
    Record = 30,
    /// A record would have to be written that nobody has opened.
    Unopened = 31,
    /// The account of the vault's state is none.
    State = 32,
    /// The caller did not sign.
    Signer = 33,
    /// A token account or the token program is not the one it has to be.
    Token = 34,
    /// An event that the vault did not send.
    Forged = 35,
    /// The cluster's rent is none that this program knows.
    Rent = 36,
}

pub type Result<T> = core::result::Result<T, Fail>;

/// Fail with `word` unless `condition` holds.
#[inline(always)]
pub fn require(condition: bool, word: Fail) -> Result<()> {
    if condition {
        Ok(())
    } else {
        Err(word)
    }
}

/// Keccak-256 of the parts one after the other.
pub fn keccak(parts: &[&[u8]]) -> Word {
    host::keccak(parts)
}

/// SHA-256 of the parts one after the other.
pub fn sha256(parts: &[&[u8]]) -> Word {
    host::sha256(parts)
}

/// Whether `account` is HOUSE or INSURANCE.
pub fn is_house(account: &Word) -> bool {
    account == &HOUSE || account == &INSURANCE
}

/// Whether an account or asset may have this chain's own form: a key that is none of the others.
pub fn is_native(id: &Word) -> bool {
    id != &ZERO && !is_house(id)
}

/// Whether operators (20 bytes each) and threshold may be a set: ascending, none zero, at most 20, m <= n, 3m > 2n.
pub fn is_set(operators: &[Address], threshold: u8) -> bool {
    let mut last: &Address = &[0; 20];
    for operator in operators {
        if operator <= last {
            return false;
        }
        last = operator;
    }
    let m = usize::from(threshold);
    operators.len() <= MAX_OPERATORS && m <= operators.len() && m + m + m > operators.len() + operators.len()
}

/// Id of the built-in series "due" of a quote class: keccak256(abi.encode("optsettle/due", class)).
pub fn compute_due(quote_class: &Word) -> Word {
    let mut text: Word = ZERO;
    text[..13].copy_from_slice(b"optsettle/due");
    keccak(&[&word_of(64), quote_class, &word_of(13), &text])
}

/// A number as a word.
pub fn word_of(number: u64) -> Word {
    let mut word: Word = ZERO;
    word[24..].copy_from_slice(&number.to_be_bytes());
    word
}

/// A number as a word if it is below 2^64, else None.
pub fn number_of(word: &Word) -> Option<u64> {
    if word[..24] != [0; 24] {
        return None;
    }
    let mut low = [0; 8];
    low.copy_from_slice(&word[24..]);
    Some(u64::from_be_bytes(low))
}

/// ceil(quantity * premium / 1e8), or None from 2^64 on. In limbs of 32 bits: the machine has no wider product.
pub fn compute_cost(quantity: u64, premium: u64) -> Option<u64> {
    const LOW: u64 = 0xffff_ffff;
    let (a1, a0, b1, b0) = (quantity >> 32, quantity & LOW, premium >> 32, premium & LOW);
    // no product of two limbs, and no sum below, reaches 2^64
    let low = a0.wrapping_mul(b0);
    let middle = a1.wrapping_mul(b0) + (low >> 32);
    let other = a0.wrapping_mul(b1) + (middle & LOW);
    let high = a1.wrapping_mul(b1) + (middle >> 32) + (other >> 32);
    let limbs = [high >> 32, high & LOW, other & LOW, low & LOW];
    let (mut rest, mut quotient) = (0u64, 0u64);
    for limb in limbs {
        let part = (rest << 32) | limb; // the rest is below 1e8 < 2^27
        if quotient >> 32 != 0 {
            return None;
        }
        quotient = (quotient << 32) | (part / CONTRACT);
        rest = part % CONTRACT;
    }
    quotient.checked_add(u64::from(rest != 0))
}
