//! Storage: raw binary keys (one byte that says which table, then fixed-width parts) and binary values.
//!
//! `outbox_head` alone has a name, because light clients prove it. No table has a key of eleven bytes that starts with
//! `o`, so it collides with none.

use cosmwasm_std::Storage;

use crate::values::{Address, Word, M96};

pub const HEAD_KEY: &[u8] = b"outbox_head";

const CONFIG: u8 = 1;
const CURSORS: u8 = 2;
const CONTROL: u8 = 3;
const OPERATORS: u8 = 4;
const LOCK: u8 = 5;
const BALANCE: u8 = 6;
const POSITION: u8 = 7;
const NEGATIVES: u8 = 8;
const SERIES: u8 = 9;
const OFFER: u8 = 10;
const TRADE: u8 = 11;
const REQUEST: u8 = 12;
const CAPS: u8 = 13;
const WINDOW: u8 = 14;
const DENOM: u8 = 15;
const PACKET: u8 = 16;

/// How many of the newest outbox packets are kept by number.
pub const KEPT_PACKETS: u64 = 1024;

/// Which of the two cap windows of an asset.
pub const SETTLEMENT: u8 = 0;
pub const WITHDRAWAL: u8 = 1;

fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(80);
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Reader of a stored record. Only this contract writes its storage, so a record that is too short is a bug: it traps.
struct Record<'a>(&'a [u8]);

impl Record<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_at(N);
        self.0 = rest;
        head.try_into().expect("as long as asked for")
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }

    fn u96(&mut self) -> u128 {
        let low: [u8; 12] = self.take();
        let mut bytes = [0; 16];
        bytes[4..].copy_from_slice(&low);
        u128::from_be_bytes(bytes)
    }

    fn word(&mut self) -> Word {
        self.take()
    }
}

#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Everything that reaches here was checked before; a wider number is a bug and traps.
    fn u96(mut self, value: u128) -> Self {
        assert!(value <= M96, "width");
        self.0.extend_from_slice(&value.to_be_bytes()[4..]);
        self
    }

    fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }
}

/// Fixed at creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub vault_id: Word,
    pub delay: u64,
}

pub fn load_config(s: &dyn Storage) -> Config {
    let data = s.get(&[CONFIG]).expect("written at creation");
    let mut r = Record(&data);
    Config { vault_id: r.word(), delay: r.u64() }
}

pub fn save_config(s: &mut dyn Storage, c: &Config) {
    s.set(&[CONFIG], &Fields::default().bytes(&c.vault_id).u64(c.delay).0);
}

pub fn load_head(s: &dyn Storage) -> Word {
    s.get(HEAD_KEY).expect("written at creation").as_slice().try_into().expect("32 bytes")
}

pub fn save_head(s: &mut dyn Storage, head: &Word) {
    s.set(HEAD_KEY, head);
}

/// Keep an outbox packet by its number, in the place of the one that is too old to be kept.
///
/// Events of a transaction are as large as its sender likes; a record is not, and can be asked for by itself.
pub fn save_packet(s: &mut dyn Storage, sequence: u64, timeout: u64, value: &[u8]) {
    s.set(&key(PACKET, &[&sequence.to_be_bytes()]), &Fields::default().u64(timeout).bytes(value).0);
    if sequence > KEPT_PACKETS {
        s.remove(&key(PACKET, &[&(sequence - KEPT_PACKETS).to_be_bytes()]));
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursors {
    pub outbox_sequence: u64,
    pub inbox_sequence: u64,
    /// Time of the last inbox packet, or of creation.
    pub accepted_at: u64,
    /// Every open trade with a packet number up to this is over.
    pub decided_upto: u64,
    pub offer_count: u64,
}

pub fn load_cursors(s: &dyn Storage) -> Cursors {
    let data = s.get(&[CURSORS]).expect("written at creation");
    let mut r = Record(&data);
    Cursors {
        outbox_sequence: r.u64(),
        inbox_sequence: r.u64(),
        accepted_at: r.u64(),
        decided_upto: r.u64(),
        offer_count: r.u64(),
    }
}

pub fn save_cursors(s: &mut dyn Storage, c: &Cursors) {
    let f = Fields::default().u64(c.outbox_sequence).u64(c.inbox_sequence).u64(c.accepted_at);
    s.set(&[CURSORS], &f.u64(c.decided_upto).u64(c.offer_count).0);
}

/// What is in force, and what follows. Operators and treasurer are in one of two stored sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub threshold: u8,
    /// Which of the two stored sets is in force.
    pub set: u8,
    pub paused: bool,
    pub epoch: u64,
    /// The other set takes over; 0: nothing pending.
    pub pending_at: u64,
    pub pending_threshold: u8,
    /// 0: nothing pending.
    pub unpause_at: u64,
    /// Bit i: operator i of the set used its pause of this epoch.
    pub pause_used: u32,
}

/// Control as it is in force at `now`: a change under delay needs no packet to come into force.
pub fn load_control(s: &dyn Storage, now: u64) -> Control {
    let data = s.get(&[CONTROL]).expect("written at creation");
    let mut r = Record(&data);
    let mut c = Control {
        threshold: r.u8(),
        set: r.u8(),
        paused: r.u8() != 0,
        epoch: r.u64(),
        pending_at: r.u64(),
        pending_threshold: r.u8(),
        unpause_at: r.u64(),
        pause_used: r.u32(),
    };
    if c.pending_at != 0 && now >= c.pending_at {
        c.threshold = c.pending_threshold;
        c.set = 1 - c.set;
        c.epoch += 1;
        c.pause_used = 0;
        c.pending_at = 0;
        c.pending_threshold = 0;
    }
    if c.unpause_at != 0 && now >= c.unpause_at {
        c.paused = false;
        c.unpause_at = 0;
    }
    c
}

pub fn save_control(s: &mut dyn Storage, c: &Control) {
    let f = Fields::default().u8(c.threshold).u8(c.set).u8(u8::from(c.paused)).u64(c.epoch).u64(c.pending_at);
    s.set(&[CONTROL], &f.u8(c.pending_threshold).u64(c.unpause_at).u32(c.pause_used).0);
}

/// One of the two sets of operators, with the treasurer that comes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorSet {
    pub treasurer: Word,
    pub operators: Vec<Address>,
}

pub fn load_operators(s: &dyn Storage, set: u8) -> OperatorSet {
    let Some(data) = s.get(&[OPERATORS, set]) else {
        return OperatorSet::default();
    };
    let mut r = Record(&data);
    let treasurer = r.word();
    let mut operators = Vec::new();
    while !r.0.is_empty() {
        operators.push(r.take());
    }
    OperatorSet { treasurer, operators }
}

pub fn save_operators(s: &mut dyn Storage, set: u8, o: &OperatorSet) {
    s.set(&[OPERATORS, set], &Fields::default().bytes(&o.treasurer).bytes(&o.operators.concat()).0);
}

/// What waits for the reply of a token or of the bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lock {
    Deposit { beneficiary: Word, asset: Word, before: u128 },
    Claim,
}

pub fn is_locked(s: &dyn Storage) -> bool {
    s.get(&[LOCK]).is_some()
}

pub fn load_lock(s: &dyn Storage) -> Option<Lock> {
    let data = s.get(&[LOCK])?;
    let mut r = Record(&data);
    Some(match r.u8() {
        1 => Lock::Deposit { beneficiary: r.word(), asset: r.word(), before: u128::from_be_bytes(r.take()) },
        _ => Lock::Claim,
    })
}

pub fn save_lock(s: &mut dyn Storage, lock: &Lock) {
    let f = match lock {
        Lock::Deposit { beneficiary, asset, before } => {
            Fields::default().u8(1).bytes(beneficiary).bytes(asset).bytes(&before.to_be_bytes())
        }
        Lock::Claim => Fields::default().u8(2),
    };
    s.set(&[LOCK], &f.0);
}

pub fn remove_lock(s: &mut dyn Storage) {
    s.remove(&[LOCK]);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub free: u128,
    pub claimable: u128,
}

pub fn load_balance(s: &dyn Storage, account: &Word, asset: &Word) -> Balance {
    let Some(data) = s.get(&key(BALANCE, &[account, asset])) else {
        return Balance::default();
    };
    let mut r = Record(&data);
    Balance { free: r.u96(), claimable: r.u96() }
}

pub fn save_balance(s: &mut dyn Storage, account: &Word, asset: &Word, b: &Balance) {
    let key = key(BALANCE, &[account, asset]);
    if *b == Balance::default() {
        s.remove(&key);
    } else {
        s.set(&key, &Fields::default().u96(b.free).u96(b.claimable).0);
    }
}

pub fn load_position(s: &dyn Storage, account: &Word, series: &Word) -> i128 {
    let Some(data) = s.get(&key(POSITION, &[account, series])) else {
        return 0;
    };
    i128::from_be_bytes(Record(&data).take())
}

pub fn save_position(s: &mut dyn Storage, account: &Word, series: &Word, quantity: i128) {
    let key = key(POSITION, &[account, series]);
    if quantity == 0 {
        s.remove(&key);
    } else {
        s.set(&key, &quantity.to_be_bytes());
    }
}

/// How many positions of an account are negative; not kept for HOUSE and INSURANCE.
pub fn load_negatives(s: &dyn Storage, account: &Word) -> u64 {
    s.get(&key(NEGATIVES, &[account])).map_or(0, |data| Record(&data).u64())
}

pub fn save_negatives(s: &mut dyn Storage, account: &Word, count: u64) {
    let key = key(NEGATIVES, &[account]);
    if count == 0 {
        s.remove(&key);
    } else {
        s.set(&key, &count.to_be_bytes());
    }
}

/// What an id of a series is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    Listed { expiry: u64 },
    Due,
}

pub fn load_series(s: &dyn Storage, id: &Word) -> Option<Series> {
    // a due has no expiry, and no listed series has expiry 0
    s.get(&key(SERIES, &[id])).map(|data| match Record(&data).u64() {
        0 => Series::Due,
        expiry => Series::Listed { expiry },
    })
}

pub fn save_series(s: &mut dyn Storage, id: &Word, series: Series) {
    let expiry = match series {
        Series::Listed { expiry } => expiry,
        Series::Due => 0,
    };
    s.set(&key(SERIES, &[id]), &expiry.to_be_bytes());
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub maker: Word,
    /// 0 the maker buys, 1 the maker sells.
    pub side: u8,
    pub series: Word,
    pub asset: Word,
    pub quantity: u128,
    pub left: u128,
    /// Base units of the asset for 1e8 quantity.
    pub premium_per_contract: u128,
    pub valid_until: u64,
    pub expiry: u64,
    pub cancelled: bool,
}

pub fn load_offer(s: &dyn Storage, number: u64) -> Option<Offer> {
    let data = s.get(&key(OFFER, &[&number.to_be_bytes()]))?;
    let mut r = Record(&data);
    Some(Offer {
        maker: r.word(),
        series: r.word(),
        asset: r.word(),
        quantity: r.u96(),
        left: r.u96(),
        premium_per_contract: r.u96(),
        valid_until: r.u64(),
        expiry: r.u64(),
        side: r.u8(),
        cancelled: r.u8() != 0,
    })
}

pub fn save_offer(s: &mut dyn Storage, number: u64, o: &Offer) {
    let f = Fields::default().bytes(&o.maker).bytes(&o.series).bytes(&o.asset).u96(o.quantity).u96(o.left);
    let f = f.u96(o.premium_per_contract).u64(o.valid_until).u64(o.expiry).u8(o.side).u8(u8::from(o.cancelled));
    s.set(&key(OFFER, &[&number.to_be_bytes()]), &f.0);
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trade {
    /// Outbox head right after its packet.
    pub id: Word,
    pub quantity: u128,
    pub cost: u128,
    /// Outbox sequence of its packet.
    pub number: u64,
}

fn trade_key(taker: &Word, offer: u64, nonce: u64) -> Vec<u8> {
    key(TRADE, &[taker, &offer.to_be_bytes(), &nonce.to_be_bytes()])
}

/// The trade under its key; it is over when its number is not above `decided_upto`.
pub fn load_trade(s: &dyn Storage, taker: &Word, offer: u64, nonce: u64) -> Option<Trade> {
    let data = s.get(&trade_key(taker, offer, nonce))?;
    let mut r = Record(&data);
    Some(Trade { id: r.word(), quantity: r.u96(), cost: r.u96(), number: r.u64() })
}

pub fn save_trade(s: &mut dyn Storage, taker: &Word, offer: u64, nonce: u64, t: &Trade) {
    let f = Fields::default().bytes(&t.id).u96(t.quantity).u96(t.cost).u64(t.number);
    s.set(&trade_key(taker, offer, nonce), &f.0);
}

pub fn remove_trade(s: &mut dyn Storage, taker: &Word, offer: u64, nonce: u64) {
    s.remove(&trade_key(taker, offer, nonce));
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Outbox head right after its packet.
    pub id: Word,
    pub amount: u128,
    pub made_at: u64,
}

pub fn load_request(s: &dyn Storage, account: &Word, asset: &Word) -> Option<Request> {
    let data = s.get(&key(REQUEST, &[account, asset]))?;
    let mut r = Record(&data);
    Some(Request { id: r.word(), amount: r.u96(), made_at: r.u64() })
}

pub fn save_request(s: &mut dyn Storage, account: &Word, asset: &Word, q: &Request) {
    let f = Fields::default().bytes(&q.id).u96(q.amount).u64(q.made_at);
    s.set(&key(REQUEST, &[account, asset]), &f.0);
}

pub fn remove_request(s: &mut dyn Storage, account: &Word, asset: &Word) {
    s.remove(&key(REQUEST, &[account, asset]));
}

/// A triple of caps, all 0 for an asset that is not in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Triple {
    pub per_packet: u128,
    pub per_hour: u128,
    pub per_day: u128,
}

/// Caps in force, and what follows at `pending_at` (0: nothing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    pub now: Triple,
    pub pending_at: u64,
    pub next: Triple,
}

fn read_triple(r: &mut Record<'_>) -> Triple {
    Triple { per_packet: r.u96(), per_hour: r.u96(), per_day: r.u96() }
}

/// Caps as they are in force at `now`.
pub fn load_caps(s: &dyn Storage, asset: &Word, now: u64) -> Caps {
    let Some(data) = s.get(&key(CAPS, &[asset])) else {
        return Caps::default();
    };
    let mut r = Record(&data);
    let in_force = read_triple(&mut r);
    if r.0.is_empty() {
        return Caps { now: in_force, ..Caps::default() };
    }
    let pending_at = r.u64();
    let next = read_triple(&mut r);
    if now >= pending_at {
        return Caps { now: next, ..Caps::default() };
    }
    Caps { now: in_force, pending_at, next }
}

pub fn save_caps(s: &mut dyn Storage, asset: &Word, c: &Caps) {
    let mut f = Fields::default().u96(c.now.per_packet).u96(c.now.per_hour).u96(c.now.per_day);
    if c.pending_at != 0 {
        f = f.u64(c.pending_at).u96(c.next.per_packet).u96(c.next.per_hour).u96(c.next.per_day);
    }
    s.set(&key(CAPS, &[asset]), &f.0);
}

/// Whether an asset is in force: caps in force are never 0.
pub fn has_caps(s: &dyn Storage, asset: &Word, now: u64) -> bool {
    load_caps(s, asset, now).now.per_packet != 0
}

/// Buckets of the last charge and what was used in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub hour: u64,
    pub hour_used: u128,
    pub day: u64,
    pub day_used: u128,
}

pub fn load_window(s: &dyn Storage, which: u8, asset: &Word) -> Window {
    let Some(data) = s.get(&key(WINDOW, &[&[which], asset])) else {
        return Window::default();
    };
    let mut r = Record(&data);
    Window { hour: r.u64(), hour_used: r.u96(), day: r.u64(), day_used: r.u96() }
}

pub fn save_window(s: &mut dyn Storage, which: u8, asset: &Word, w: &Window) {
    let f = Fields::default().u64(w.hour).u96(w.hour_used).u64(w.day).u96(w.day_used);
    s.set(&key(WINDOW, &[&[which], asset]), &f.0);
}

/// Name of a registered bank coin.
pub fn load_denom(s: &dyn Storage, asset: &Word) -> Option<String> {
    s.get(&key(DENOM, &[asset])).map(|data| String::from_utf8(data).expect("was a string"))
}

pub fn save_denom(s: &mut dyn Storage, asset: &Word, denom: &str) {
    s.set(&key(DENOM, &[asset]), denom.as_bytes());
}
