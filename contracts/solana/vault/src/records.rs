//! Records: one account per balance, position, account, series, offer, trade, request and asset of a vault.
//!
//! A record is a derived address of the vault's state and the record's keys, opened beforehand and never closed. It
//! carries its keys, so that a packet can name it by the index of its account. One that nobody has opened, proven by
//! deriving its address, reads as zero; writing it fails.

use pinocchio::{AccountView, Address as Key};

use crate::host::{find_address, get_rent};
use crate::system::{allocate, assign, transfer_lamports};
use crate::values::{require, Fail, Result, Word};

pub const BALANCE: u8 = 1;
pub const POSITION: u8 = 2;
pub const ACCOUNT: u8 = 3;
pub const SERIES: u8 = 4;
pub const OFFER: u8 = 5;
pub const TRADE: u8 = 6;
pub const REQUEST: u8 = 7;
pub const ASSET: u8 = 8;

/// Where the keys are: after the tag (8 bytes with padding) and the address of the vault's state.
const KEYS_AT: usize = 40;

/// Keys: account, asset.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Balance {
    pub free: u64,
    pub claimable: u64,
}

/// Keys: account, series. An i128 as two halves, the low one first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Position {
    low: u64,
    high: u64,
}

impl Position {
    #[inline(always)]
    pub fn get(self) -> i128 {
        (i128::from(self.high as i64) << 64) | i128::from(self.low)
    }

    #[inline(always)]
    pub fn of(quantity: i128) -> Self {
        Position { low: quantity as u64, high: (quantity >> 64) as u64 }
    }
}

/// Keys: account. How many of its positions are negative; not kept for HOUSE and INSURANCE.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Account {
    pub negatives: u64,
}

pub const UNKNOWN: u64 = 0;
pub const LISTED: u64 = 1;
pub const DUE: u64 = 2;

/// Keys: id.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Series {
    /// UNKNOWN, LISTED or DUE.
    pub status: u64,
    pub expiry: u64,
}

/// Keys: number (8 bytes, little-endian).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Offer {
    pub maker: Word,
    pub series: Word,
    pub asset: Word,
    pub quantity: u64,
    pub left: u64,
    /// Base units of the asset for 1e8 quantity.
    pub premium_per_contract: u64,
    pub valid_until: u64,
    pub expiry: u64,
    /// 0 the maker buys, 1 the maker sells.
    pub side: u32,
    pub cancelled: u32,
}

/// Keys: taker, offer, nonce (8 bytes each, little-endian).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Trade {
    /// Outbox head right after its packet.
    pub id: Word,
    pub quantity: u64,
    pub cost: u64,
    /// Outbox sequence of its packet; 0: none, or over.
    pub number: u64,
}

/// Keys: account, asset.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Request {
    /// Outbox head right after its packet.
    pub id: Word,
    /// 0: none, or paid.
    pub amount: u64,
    pub made_at: u64,
}

/// A triple of caps, all 0 for an asset that is not in force.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Triple {
    pub per_packet: u64,
    pub per_hour: u64,
    pub per_day: u64,
}

/// Buckets of the last charge and what was used in them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Window {
    pub hour: u64,
    pub hour_used: u64,
    pub day: u64,
    pub day_used: u64,
}

/// Keys: id. Caps in force, what follows at `pending_at` (0: nothing), and the two cap windows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Asset {
    pub caps: Triple,
    pub pending_at: u64,
    pub next: Triple,
    pub settlement: Window,
    pub withdrawal: Window,
}

impl Asset {
    /// The record as it is in force at `now`.
    #[inline(always)]
    pub fn at(mut self, now: u64) -> Self {
        if self.pending_at != 0 && now >= self.pending_at {
            self.caps = self.next;
            self.pending_at = 0;
            self.next = Triple { per_packet: 0, per_hour: 0, per_day: 0 };
        }
        self
    }

    /// Whether the asset is in force: caps in force are never 0.
    #[inline(always)]
    pub fn has_caps(&self) -> bool {
        self.caps.per_packet != 0
    }
}

/// Content of a kind of record: plain numbers, of which all zero is "nothing here".
///
/// # Safety
/// The type must be valid for any bytes, aligned to 8, and `TAG` its own.
pub unsafe trait Content: Copy {
    const TAG: u8;
}

macro_rules! contents {
    ($($content:ty: $tag:expr),*) => {
        $(unsafe impl Content for $content { const TAG: u8 = $tag; })*
    };
}
contents!(Balance: BALANCE, Position: POSITION, Account: ACCOUNT, Series: SERIES, Offer: OFFER, Trade: TRADE,
    Request: REQUEST, Asset: ASSET);

/// Bytes of the keys and of the content of a kind of record; None if there is no such kind.
pub fn get_sizes(tag: u8) -> Option<(usize, usize)> {
    Some(match tag {
        BALANCE => (64, core::mem::size_of::<Balance>()),
        POSITION => (64, core::mem::size_of::<Position>()),
        ACCOUNT => (32, core::mem::size_of::<Account>()),
        SERIES => (32, core::mem::size_of::<Series>()),
        OFFER => (8, core::mem::size_of::<Offer>()),
        TRADE => (48, core::mem::size_of::<Trade>()),
        REQUEST => (64, core::mem::size_of::<Request>()),
        ASSET => (32, core::mem::size_of::<Asset>()),
        _ => return None,
    })
}

/// A record among the accounts of a call. Tag 0: the account is no record of this vault.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Record {
    keys: *const u8,
    /// Null: nobody has opened it.
    content: *mut u8,
    pub tag: u8,
}

impl Record {
    /// The keys one after the other.
    #[inline(always)]
    pub fn get_keys(&self) -> &'static [u8] {
        match get_sizes(self.tag) {
            Some((keys, _)) => unsafe { core::slice::from_raw_parts(self.keys, keys) },
            None => &[],
        }
    }

    /// The first key of a record whose keys begin with a word.
    #[inline(always)]
    pub fn get_first(&self) -> &'static Word {
        unsafe { &*(self.keys as *const Word) }
    }

    /// The second key of a balance, a position or a request.
    #[inline(always)]
    pub fn get_second(&self) -> &'static Word {
        unsafe { &*(self.keys.add(32) as *const Word) }
    }

    #[inline(always)]
    pub fn load<T: Content>(&self) -> Result<T> {
        require(self.tag == T::TAG, Fail::Record)?;
        if self.content.is_null() {
            return Ok(unsafe { core::mem::zeroed() });
        }
        Ok(unsafe { *(self.content as *const T) })
    }

    #[inline(always)]
    pub fn save<T: Content>(&self, content: T) -> Result<()> {
        require(self.tag == T::TAG, Fail::Record)?;
        require(!self.content.is_null(), Fail::Unopened)?;
        unsafe { *(self.content as *mut T) = content };
        Ok(())
    }
}

/// The record in an account that is one of the vault with state `state`; tag 0 if it is not.
pub fn read_record(place: &Place<'_>) -> Record {
    let Place { account, state, program } = *place;
    let none = Record { keys: core::ptr::null(), content: core::ptr::null_mut(), tag: 0 };
    if !account.owned_by(program) || account.data_len() < KEYS_AT {
        return none;
    }
    let data = account.data_ptr() as *mut u8;
    let (tag, owner) = unsafe { (*data, &*(data.add(8) as *const Word)) };
    let Some((keys, content)) = get_sizes(tag) else {
        return none; // a state account begins with a letter, which is no tag
    };
    if account.data_len() != KEYS_AT + keys + content || owner != state.as_array() {
        return none;
    }
    unsafe { Record { keys: data.add(KEYS_AT), content: data.add(KEYS_AT + keys), tag } }
}

/// Which record: its kind and its keys one after the other.
#[derive(Clone, Copy)]
pub struct Id<'a> {
    pub tag: u8,
    pub keys: &'a [u8],
}

/// An account, seen by the vault with state `state`.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub account: &'a AccountView,
    pub state: &'a Key,
    pub program: &'a Key,
}

/// Derived address of a record and its bump.
fn find_record_address(id: &Id<'_>, place: &Place<'_>) -> Result<(Word, u8)> {
    let (tag, keys, state, program) = ([id.tag], id.keys, place.state, place.program);
    // a seed has at most 32 bytes
    let (first, second) = keys.split_at(keys.len().min(32));
    if second.is_empty() {
        find_address(&[&tag, state.as_array(), first], program)
    } else {
        find_address(&[&tag, state.as_array(), first, second], program)
    }
}

/// The record under keys that nobody has opened: proven by deriving its address.
pub fn prove_unopened(place: &Place<'_>, id: &Id<'_>) -> Result<Record> {
    require(!place.account.owned_by(place.program), Fail::Record)?;
    let (address, _) = find_record_address(id, place)?;
    require(place.account.address().as_array() == &address, Fail::Record)?;
    Ok(Record { keys: id.keys.as_ptr(), content: core::ptr::null_mut(), tag: id.tag })
}

/// The record of a kind under keys in `account`, opened or not; RECORD if the account is another.
pub fn find_record(place: &Place<'_>, id: &Id<'_>) -> Result<Record> {
    if !place.account.owned_by(place.program) {
        return prove_unopened(place, id);
    }
    let record = read_record(place);
    require(record.tag == id.tag && record.get_keys() == id.keys, Fail::Record)?;
    Ok(record)
}

/// The same, opened at the expense of `payer` if nobody has.
///
/// In three steps, because creation in one fails for ever when somebody has sent lamports to the address before.
pub fn open_record(place: &Place<'_>, id: &Id<'_>, payer: &AccountView) -> Result<Record> {
    let Place { account, state, program } = *place;
    let Id { tag, keys } = *id;
    if account.owned_by(program) {
        return find_record(place, id);
    }
    let (key_bytes, content_bytes) = get_sizes(tag).ok_or(Fail::Record)?;
    require(keys.len() == key_bytes, Fail::Record)?;
    let (address, bump) = find_record_address(id, place)?;
    require(account.address().as_array() == &address, Fail::Record)?;
    let bytes = (KEYS_AT + key_bytes + content_bytes) as u64;
    let (tag_seed, bump_seed) = ([tag], [bump]);
    let (first, second) = keys.split_at(keys.len().min(32));
    if second.is_empty() {
        create(place, payer, bytes, &[&tag_seed, state.as_array(), first, &bump_seed])?;
    } else {
        create(place, payer, bytes, &[&tag_seed, state.as_array(), first, second, &bump_seed])?;
    }
    unsafe {
        let data = account.data_ptr() as *mut u8;
        *data = tag;
        core::ptr::copy_nonoverlapping(state.as_array().as_ptr(), data.add(8), 32);
        core::ptr::copy_nonoverlapping(keys.as_ptr(), data.add(KEYS_AT), key_bytes);
    }
    Ok(read_record(place))
}

/// Make an account, the derived address of `seeds` (with the bump), one of this program with `bytes` zero bytes.
pub fn create(place: &Place<'_>, payer: &AccountView, bytes: u64, seeds: &[&[u8]]) -> Result<()> {
    let account = place.account;
    let rent = get_rent(bytes)?;
    let held = account.lamports();
    if held < rent {
        transfer_lamports(payer, account, rent - held);
    }
    allocate(account, bytes, seeds);
    assign(account, place.program, seeds);
    Ok(())
}
