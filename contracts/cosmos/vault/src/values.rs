//! Constants, words and the predicates on accounts and amounts (protocol.md 2 to 4, vault.md 1).

use sha2::Sha256;
use sha3::{Digest, Keccak256};

/// Id of an account, an asset, a series, a portfolio, a trade or a request; a word of an encoding.
pub type Word = [u8; 32];
/// secp256k1 address of an operator.
pub type Address = [u8; 20];

/// keccak256("optsettle/house")
pub const HOUSE_NAME: &str = "optsettle/house";
/// keccak256("optsettle/insurance")
pub const INSURANCE_NAME: &str = "optsettle/insurance";
pub const HOUSE: Word = [
    0xdd, 0x43, 0xf5, 0xb4, 0x00, 0x46, 0x42, 0x8a, 0x4b, 0x3e, 0x2b, 0x7c, 0xa6, 0x76, 0xfa, 0x87, 0xfd, 0x9b, 0xbf,
    0xaf, 0x3c, 0x4e, 0xc0, 0xec, 0x07, 0x2d, 0x83, 0x26, 0xf6, 0x63, 0xfe, 0x41,
];
pub const INSURANCE: Word = [
    0xd5, 0xe8, 0x7c, 0x0d, 0x3b, 0x54, 0x6f, 0xbf, 0x67, 0x68, 0xf0, 0xb1, 0x3f, 0x24, 0x97, 0xf6, 0xe6, 0x5a, 0x7c,
    0xf6, 0xf2, 0xa0, 0x01, 0x75, 0x70, 0xdc, 0x90, 0xff, 0x0a, 0x27, 0xcd, 0x32,
];

pub const CLEARING: &str = "optsettle-clearing";
pub const PORT: &str = "optsettle";
pub const VERSION: &str = "optsettle-1";
pub const ENCODING: &str = "application/x-solidity-abi";

pub const MAX_OPERATORS: usize = 20;
/// Legs of one Execute, and prices of one Execute.
pub const MAX_LEGS: usize = 128;
/// Items of one decision.
pub const MAX_ITEMS: usize = 256;
/// Assets named at creation.
pub const MAX_CAPS: usize = 32;
/// Longest name of a bank coin.
pub const MAX_DENOM_BYTES: usize = 128;

pub const HOUR: u64 = 3_600;
pub const DAY: u64 = 86_400;
/// How long the clearing must be silent before accounts may leave by themselves.
pub const ESCAPE_AFTER: u64 = 30 * DAY;
pub const LONGEST_SERIES: u64 = 400 * DAY;
pub const MAX_DELAY: u64 = u32::MAX as u64;

/// Largest amount, quantity, premium, cap and balance: 2^96 - 1.
pub const M96: u128 = (1 << 96) - 1;
/// 1e8 units of quantity are one contract.
pub const CONTRACT: u128 = 100_000_000;

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
pub const EXECUTE: u16 = 32;
pub const DECIDE_TRADES: u16 = 33;
pub const DECIDE_WITHDRAWALS: u16 = 34;
pub const ROTATE_OPERATORS: u16 = 35;
pub const SET_CAPS: u16 = 36;
pub const UNPAUSE: u16 = 37;

/// Status of an Ack.
pub const DONE: u64 = 1;
pub const REFUSED: u64 = 2;

/// Why a body was refused; the numbers are those of vault.md 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Keccak-256 of the parts one after the other.
pub fn keccak(parts: &[&[u8]]) -> Word {
    let mut hasher = Keccak256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// SHA-256 of the parts one after the other.
pub fn sha256(parts: &[&[u8]]) -> Word {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Whether `account` is HOUSE or INSURANCE.
pub fn is_house(account: &Word) -> bool {
    account == &HOUSE || account == &INSURANCE
}

/// Whether an account or asset has this chain's own form: a canonical address, or the hash of a denom.
pub fn is_native(id: &Word) -> bool {
    id != &[0; 32] && !is_house(id)
}

/// Whether `amount` is above 0 and below 2^96.
pub fn is_amount(amount: u128) -> bool {
    amount != 0 && amount <= M96
}

/// Whether operators and threshold may be a set: ascending, none zero, at most 20, m <= n, 3m > 2n.
pub fn is_set(operators: &[Address], threshold: u8) -> bool {
    let mut last: Address = [0; 20];
    for operator in operators {
        if *operator <= last {
            return false;
        }
        last = *operator;
    }
    let m = usize::from(threshold);
    operators.len() <= MAX_OPERATORS && m <= operators.len() && 3 * m > 2 * operators.len()
}

/// Id of the built-in series "due" of a quote class: keccak256(abi.encode("optsettle/due", class)).
pub fn compute_due(quote_class: &Word) -> Word {
    let mut text: Word = [0; 32];
    text[..13].copy_from_slice(b"optsettle/due");
    keccak(&[&word_of(64), quote_class, &word_of(13), &text])
}

/// Asset id of a bank coin.
pub fn compute_denom_asset(denom: &str) -> Word {
    keccak(&[denom.as_bytes()])
}

/// A number as a word.
pub fn word_of(number: u128) -> Word {
    let mut word: Word = [0; 32];
    word[16..].copy_from_slice(&number.to_be_bytes());
    word
}

/// A number as a word if it is below 2^128, else None.
pub fn number_of(word: &Word) -> Option<u128> {
    if word[..16] != [0; 16] {
        return None;
    }
    Some(u128::from_be_bytes(word[16..].try_into().expect("16 bytes")))
}

/// Bytes of at most 32 left-padded to a word; None if there are more.
pub fn left_padded(bytes: &[u8]) -> Option<Word> {
    let mut word: Word = [0; 32];
    let start = 32usize.checked_sub(bytes.len())?;
    word[start..].copy_from_slice(bytes);
    Some(word)
}

/// A signed 256-bit number in two's complement if |number| < 2^96, else None.
pub fn signed_of(word: &Word) -> Option<i128> {
    let number = i128::from_be_bytes(word[16..].try_into().expect("16 bytes"));
    let sign: u8 = if number < 0 { 0xff } else { 0 };
    if word[..16] != [sign; 16] || number.unsigned_abs() > M96 {
        return None;
    }
    Some(number)
}
