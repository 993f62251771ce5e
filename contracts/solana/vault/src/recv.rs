//! What a certified packet does: checks in the order of protocol.md 3 and vault.md 3, then the whole body, then one Ack.
//!
//! A packet arrives compactly: ids are those that the records among the accounts carry, named by index. The canonical
//! encoding is written out from them, and it is this that the operators have signed. Nothing here calls another program.
//! A record that is needed and missing, or another one, fails the transaction: no carrier can force a refusal.

use pinocchio::{AccountView, Address as Key};

use crate::abi::{Reader, Writer, FREE};
use crate::calls::join;
use crate::host::table;
use crate::packet::{compute_commitment, compute_packet_digest, emit, send_inbox_event, verify_signatures};
use crate::records::{
    get_sizes, prove_unopened, read_record, Account, Asset, Balance, Id, Offer, Place, Position, Record, Request,
    Series, Trade, Triple, Window, ACCOUNT, ASSET, BALANCE, DUE, OFFER, POSITION, REQUEST, SERIES, TRADE, UNKNOWN,
};
use crate::state::{OperatorSet, State};
use crate::values::{
    is_house, is_native, is_set, number_of, require, Address, Fail, Reason, Result, Word, ACK, CLEARING, DAY,
    DECIDE_TRADES, DECIDE_WITHDRAWALS, DONE, EXECUTE, HOUR, HOUSE, MAX_LEGS, MAX_OPERATORS, REFUSED, ROTATE_OPERATORS,
    SET_CAPS, UNPAUSE, ZERO,
};

/// Most accounts of a transaction.
pub const MAX_ACCOUNTS: usize = 64;
/// Accounts before the records: state, this program.
const FIRST_RECORD: usize = 2;
/// Index that stands for "written out in the data".
const EXPLICIT: u8 = 255;

// tables in work memory, one behind the other
const RECORDS_AT: usize = FREE;
const SUMS_AT: usize = RECORDS_AT + MAX_ACCOUNTS * core::mem::size_of::<Record>();
const DEBITS_AT: usize = SUMS_AT + MAX_ACCOUNTS * 16;

/// Bit i of a decision is item i, least significant first.
type Bitmap = Word;
/// Applied with a bitmap, or refused.
type Judged = core::result::Result<Bitmap, Reason>;

/// Refuse with `reason` unless `condition` holds.
macro_rules! check {
    ($condition:expr, $reason:ident) => {
        if !$condition {
            return Ok(Err(Reason::$reason));
        }
    };
}

/// The records among the accounts of a packet.
struct Records {
    list: &'static [Record],
}

impl Records {
    fn get(&self, index: u8) -> Result<Record> {
        let record = self.list.get(usize::from(index)).ok_or(Fail::Record)?;
        require(record.tag != 0, Fail::Record)?;
        Ok(*record)
    }

    fn get_of(&self, index: u8, tag: u8) -> Result<Record> {
        let record = self.get(index)?;
        require(record.tag == tag, Fail::Record)?;
        Ok(record)
    }

    /// Place of the first record of a kind under keys; RECORD if it is not among the accounts.
    fn find_index(&self, tag: u8, keys: &[u8]) -> Result<usize> {
        for (index, record) in self.list.iter().enumerate() {
            if record.tag == tag && record.get_keys() == keys {
                return Ok(index);
            }
        }
        Err(Fail::Record)
    }

    fn find(&self, tag: u8, keys: &[u8]) -> Result<Record> {
        Ok(self.list[self.find_index(tag, keys)?])
    }
}

/// What a body needs of its surroundings.
struct Scene<'a> {
    state: &'a mut State,
    records: Records,
    now: u64,
}

/// Take the next packet of the clearing.
///
/// Data: sequence u64, timeout u64, count of signatures u8, signatures (65 bytes each), count of unopened records u8, per
/// such record (index u8, tag u8, keys), kind u8, body. Accounts: 0 state, 1 this program, then records.
pub fn recv(program: &Key, accounts: &[AccountView], state: &mut State, now: u64, r: &mut Reader<'_>) -> Result<()> {
    let (sequence, timeout) = (r.number()?, r.number()?);
    let next = state.inbox_sequence.checked_add(1).ok_or(Fail::Sequence)?;
    require(sequence == next, Fail::Sequence)?;
    let latest = now.checked_add(DAY).ok_or(Fail::Timeout)?;
    require(now < timeout && timeout <= latest, Fail::Timeout)?;
    let count = r.count()?;
    let signatures: &[[u8; 65]] = r.arrays(count)?;

    let records = read_records(program, accounts, r)?;
    let mut event = Writer::of_inbox();
    let body = *r;
    let kind = write_body(&records, r, &mut event)?;
    r.done()?;
    let commitment = compute_commitment(CLEARING, timeout, event.get_value());
    let digest = compute_packet_digest(&state.vault_id, state.epoch, next, &commitment);
    verify_signatures(&digest, signatures, state)?;

    state.inbox_sequence = next;
    state.accepted_at = now;
    send_inbox_event(program, &accounts[0], state, &mut event, timeout);

    let mut scene = Scene { state, records, now };
    let (status, reason, bitmap) = match apply(&mut scene, body)? {
        Ok(bitmap) => (DONE, 0, bitmap),
        Err(reason) => (REFUSED, reason as u64, ZERO),
    };
    let mut ack = Writer::of_outbox(ACK)?;
    ack.number(next)?;
    ack.word(&commitment)?;
    ack.number(u64::from(kind))?;
    ack.number(status)?;
    ack.number(reason)?;
    ack.word(&bitmap)?;
    emit(program, &accounts[0], scene.state, now, &mut ack)
}

/// Read the records among the accounts, and prove those unopened that the data calls so.
fn read_records(program: &Key, accounts: &[AccountView], r: &mut Reader<'_>) -> Result<Records> {
    let state = accounts[0].address();
    let accounts = accounts.get(FIRST_RECORD..).ok_or(Fail::Record)?;
    let records = unsafe { table::<Record, MAX_ACCOUNTS>(RECORDS_AT) };
    let places = records.get_mut(..accounts.len()).ok_or(Fail::Record)?;
    for (record, account) in places.iter_mut().zip(accounts) {
        *record = read_record(&Place { account, state, program });
    }
    for _ in 0..r.count()? {
        let (index, tag) = (r.count()?, r.byte()?);
        let (bytes, _) = get_sizes(tag).ok_or(Fail::Malformed)?;
        let keys = r.take(bytes)?;
        let account = accounts.get(index).ok_or(Fail::Record)?;
        places[index] = prove_unopened(&Place { account, state, program }, &Id { tag, keys })?;
    }
    Ok(Records { list: places })
}

// ---- compact bodies ---------------------------------------------------------------------------------------------------

/// A leg of an Execute: (index of a balance or position u8, delta i64), or what only a refused one needs: (255, index,
/// kind u8, delta as a word).
struct Leg {
    record: Record,
    kind: u8,
    /// None: beyond the range of this family.
    delta: Option<i64>,
    /// The delta as the operators signed it.
    word: Word,
}

fn read_leg(records: &Records, r: &mut Reader<'_>) -> Result<Leg> {
    let index = r.byte()?;
    let is_wide = index == EXPLICIT;
    let record = records.get(if is_wide { r.byte()? } else { index })?;
    let tag = u8::from(record.tag == POSITION);
    require(tag == 1 || record.tag == BALANCE, Fail::Record)?;
    let mut word = ZERO;
    let mut kind = tag;
    if is_wide {
        kind = r.byte()?;
        require(kind > 1 || kind == tag, Fail::Record)?;
        word = *r.word()?;
    } else {
        let number = r.number()?;
        word[..24].fill(if (number as i64) < 0 { 0xff } else { 0 });
        word[24..].copy_from_slice(&number.to_be_bytes());
    }
    let mut low = [0; 8];
    low.copy_from_slice(&word[24..]);
    let delta = i64::from_be_bytes(low);
    let sign = if delta < 0 { 0xff } else { 0 };
    let is_in_range = word[..24] == [sign; 24] && delta != i64::MIN;
    Ok(Leg { record, kind, delta: is_in_range.then_some(delta), word })
}

/// An item of DecideTrades or DecideWithdrawals: (index of the record u8, 0) or (index u8, 1, id).
struct Item {
    record: Record,
    id: Word,
}

fn read_item(records: &Records, tag: u8, r: &mut Reader<'_>) -> Result<Item> {
    let record = records.get_of(r.byte()?, tag)?;
    let id = if r.flag()? {
        *r.word()?
    } else if tag == TRADE {
        record.load::<Trade>()?.id
    } else {
        record.load::<Request>()?.id
    };
    Ok(Item { record, id })
}

/// A price of an Execute: index of its series u8 (255: the id follows), count of bytes u8, price (big-endian).
fn write_price(records: &Records, r: &mut Reader<'_>, w: &mut Writer) -> Result<()> {
    let index = r.byte()?;
    if index == EXPLICIT {
        w.word(r.word()?)?;
    } else {
        w.word(records.get_of(index, SERIES)?.get_first())?;
    }
    let count = r.count()?;
    let bytes = r.take(count)?;
    let mut price: Word = ZERO;
    price.get_mut(32usize.wrapping_sub(count)..).ok_or(Fail::Malformed)?.copy_from_slice(bytes);
    w.word(&price)
}

/// Write the canonical value of the compact body; returns its kind.
fn write_body(records: &Records, r: &mut Reader<'_>, w: &mut Writer) -> Result<u8> {
    let kind = r.byte()?;
    w.number(u64::from(kind))?;
    match kind {
        EXECUTE => {
            w.word(r.word()?)?;
            let prices = r.count()?;
            require(prices <= MAX_LEGS, Fail::Malformed)?;
            w.number(128)?;
            // the second array begins after the count and the pairs of the first
            w.number(160 + ((prices as u64) << 6))?;
            w.number(prices as u64)?;
            for _ in 0..prices {
                write_price(records, r, w)?;
            }
            let legs = r.count()?;
            require(legs <= MAX_LEGS, Fail::Malformed)?;
            w.number(legs as u64)?;
            for _ in 0..legs {
                let leg = read_leg(records, r)?;
                w.number(u64::from(leg.kind))?;
                w.word(leg.record.get_first())?;
                w.word(leg.record.get_second())?;
                w.word(&leg.word)?;
            }
        }
        DECIDE_TRADES => {
            w.word(r.word()?)?;
            w.number(r.number()?)?;
            w.number(128)?;
            let items = r.count()?;
            w.number(items as u64)?;
            for _ in 0..items {
                let item = read_item(records, TRADE, r)?;
                let (_, offer, nonce) = read_trade_keys(&item.record);
                w.word(&item.id)?;
                w.word(item.record.get_first())?;
                w.number(offer)?;
                w.number(nonce)?;
            }
        }
        DECIDE_WITHDRAWALS => {
            w.word(r.word()?)?;
            w.number(96)?;
            let items = r.count()?;
            w.number(items as u64)?;
            for _ in 0..items {
                let item = read_item(records, REQUEST, r)?;
                w.word(&item.id)?;
                w.word(item.record.get_first())?;
                w.word(item.record.get_second())?;
            }
        }
        ROTATE_OPERATORS => {
            w.number(r.number()?)?;
            w.number(u64::from(r.byte()?))?;
            w.number(r.number()?)?;
            w.word(r.word()?)?;
            w.number(192)?;
            let count = r.count()?;
            require(count <= MAX_OPERATORS, Fail::Malformed)?;
            w.number(count as u64)?;
            for operator in r.arrays::<20>(count)? {
                w.address(operator)?;
            }
        }
        SET_CAPS => {
            w.word(records.get_of(r.byte()?, ASSET)?.get_first())?;
            for word in r.arrays::<32>(3)? {
                w.word(word)?;
            }
        }
        UNPAUSE => {}
        _ => return Err(Fail::Malformed),
    }
    Ok(kind)
}

/// Taker, offer and nonce of the record of a trade.
fn read_trade_keys(record: &Record) -> (&'static Word, u64, u64) {
    let keys = record.get_keys();
    let (mut offer, mut nonce) = ([0; 8], [0; 8]);
    offer.copy_from_slice(&keys[32..40]);
    nonce.copy_from_slice(&keys[40..48]);
    (record.get_first(), u64::from_le_bytes(offer), u64::from_le_bytes(nonce))
}

// ---- what bodies do ---------------------------------------------------------------------------------------------------

/// Apply a body, or say why not with nothing written.
fn apply(s: &mut Scene<'_>, mut r: Reader<'_>) -> Result<Judged> {
    let kind = r.byte()?;
    if matches!(kind, EXECUTE | DECIDE_TRADES | DECIDE_WITHDRAWALS) {
        check!(s.state.paused == 0, Paused);
    }
    match kind {
        EXECUTE => execute(s, r),
        DECIDE_TRADES => decide_trades(s, r),
        DECIDE_WITHDRAWALS => decide_withdrawals(s, r),
        ROTATE_OPERATORS => rotate_operators(s, r),
        SET_CAPS => set_caps(s, r),
        _ => {
            check!(s.state.paused != 0, NotPaused);
            let Some(at) = s.now.checked_add(s.state.delay) else {
                return Ok(Err(Reason::Delay));
            };
            s.state.unpause_at = at;
            Ok(Ok(ZERO))
        }
    }
}

/// Skip what an Execute says before its legs; returns their count.
fn skip_prices(r: &mut Reader<'_>) -> Result<usize> {
    r.word()?;
    for _ in 0..r.count()? {
        if r.byte()? == EXPLICIT {
            r.word()?;
        }
        let count = r.count()?;
        r.take(count)?;
    }
    r.count()
}

fn execute(s: &mut Scene<'_>, mut r: Reader<'_>) -> Result<Judged> {
    let count = skip_prices(&mut r)?;
    let legs = r;
    // per record of an asset or series, by its place: sum of the deltas, and what accounts but the house's pay
    let sums = unsafe { table::<i128, MAX_ACCOUNTS>(SUMS_AT) };
    let debits = unsafe { table::<u128, MAX_ACCOUNTS>(DEBITS_AT) };
    let mut last: Option<Record> = None;
    for _ in 0..count {
        let Leg { record, kind, delta, .. } = read_leg(&s.records, &mut r)?;
        let (account, id) = (record.get_first(), record.get_second());
        let is_house = is_house(account);
        check!(kind <= 1, LegKind);
        check!(delta != Some(0), Zero);
        let Some(delta) = delta else {
            return Ok(Err(Reason::Range));
        };
        check!(is_house || is_native(account), Account);
        if let Some(before) = last {
            // the tag orders as the kind of the leg does
            let is_after = before.tag < record.tag || before.tag == record.tag && before.get_keys() < record.get_keys();
            check!(is_after, Order);
        }
        last = Some(record);
        let place;
        if record.tag == BALANCE {
            place = s.records.find_index(ASSET, id)?;
            let known: Asset = s.records.list[place].load()?;
            check!(known.at(s.now).has_caps(), Asset);
            let new = i128::from(record.load::<Balance>()?.free) + i128::from(delta);
            check!(new >= 0, Cash);
            check!(new <= i128::from(u64::MAX), Overflow);
            if delta < 0 && !is_house {
                debits[place] += u128::from(delta.unsigned_abs());
            }
        } else {
            place = s.records.find_index(SERIES, id)?;
            let known: Series = s.records.list[place].load()?;
            check!(known.status != UNKNOWN, Series);
            let old = record.load::<Position>()?.get();
            let delta = i128::from(delta);
            if known.status != DUE && !is_house {
                // only towards 0: against the sign of the position, and no further than 0
                let is_towards = old != 0 && (old > 0) != (delta > 0);
                check!(is_towards && delta.unsigned_abs() <= old.unsigned_abs(), Direction);
            }
            check!(old.checked_add(delta).is_some(), Overflow);
        }
        sums[place] += i128::from(delta);
    }
    for sum in sums.iter() {
        check!(*sum == 0, Sum);
    }
    for (record, debit) in s.records.list.iter().zip(debits.iter()) {
        if *debit != 0 {
            check!(charge_settlement(record, s.now, *debit)?.is_some(), Cap);
        }
    }

    // every check is passed: write
    for (record, debit) in s.records.list.iter().zip(debits.iter()) {
        if *debit != 0 {
            if let Some(asset) = charge_settlement(record, s.now, *debit)? {
                record.save(asset)?;
            }
        }
    }
    let mut r = legs;
    for _ in 0..count {
        let leg = read_leg(&s.records, &mut r)?;
        let (record, delta) = (leg.record, leg.delta.ok_or(Fail::Malformed)?); // passed above
        if record.tag == BALANCE {
            let old: Balance = record.load()?;
            let free = if delta < 0 { old.free - delta.unsigned_abs() } else { old.free + delta.unsigned_abs() };
            record.save(Balance { free, ..old })?;
        } else {
            let old = record.load::<Position>()?.get();
            set_position(s, &record, old + i128::from(delta))?;
        }
    }
    Ok(Ok(ZERO))
}

/// The record of an asset after a settlement debit, or None if a cap would be passed.
fn charge_settlement(record: &Record, now: u64, debit: u128) -> Result<Option<Asset>> {
    let mut asset = record.load::<Asset>()?.at(now);
    if debit > u128::from(asset.caps.per_packet) {
        return Ok(None);
    }
    let is_charged = charge(&mut asset.settlement, now, debit as u64, &asset.caps);
    Ok(is_charged.then_some(asset))
}

/// Charge `amount` to a window; false, and the window is void, if a cap would be passed.
fn charge(window: &mut Window, now: u64, amount: u64, caps: &Triple) -> bool {
    let (hour, day) = (now / HOUR, now / DAY);
    let used_in_hour = if window.hour == hour { window.hour_used } else { 0 };
    let used_in_day = if window.day == day { window.day_used } else { 0 };
    let (Some(hour_used), Some(day_used)) = (used_in_hour.checked_add(amount), used_in_day.checked_add(amount)) else {
        return false;
    };
    *window = Window { hour, hour_used, day, day_used };
    hour_used <= caps.per_hour && day_used <= caps.per_day
}

fn set_position(s: &Scene<'_>, record: &Record, new: i128) -> Result<()> {
    let account = record.get_first();
    if !is_house(account) {
        let was_negative = record.load::<Position>()?.get() < 0;
        let is_negative = new < 0;
        if was_negative != is_negative {
            let count = s.records.find(ACCOUNT, account)?;
            let Account { negatives } = count.load()?;
            count.save(Account { negatives: if is_negative { negatives + 1 } else { negatives - 1 } })?;
        }
    }
    record.save(Position::of(new))
}

fn set_bit(bitmap: &mut Bitmap, index: usize) {
    bitmap[31 - (index >> 3)] |= 1 << (index & 7);
}

fn decide_trades(s: &mut Scene<'_>, mut r: Reader<'_>) -> Result<Judged> {
    r.word()?;
    let upto = r.number()?;
    check!(upto <= s.state.outbox_sequence && upto >= s.state.decided_upto, Range);
    let mut bitmap = ZERO;
    for index in 0..r.count()? {
        let item = read_decided_item(s, TRADE, &mut r)?;
        if decide_trade(s, &item)? {
            set_bit(&mut bitmap, index);
        }
    }
    s.state.decided_upto = upto;
    Ok(Ok(bitmap))
}

/// The next item. Its id without one in the data is that of the record, which an earlier item may have ended since; then
/// the id is gone, and the item names nothing either way.
fn read_decided_item(s: &Scene<'_>, tag: u8, r: &mut Reader<'_>) -> Result<Item> {
    read_item(&s.records, tag, r)
}

/// Whether the trade took effect. An id that is not that of the open record names nothing.
fn decide_trade(s: &mut Scene<'_>, item: &Item) -> Result<bool> {
    let trade: Trade = item.record.load()?;
    if trade.number == 0 || trade.id != item.id || trade.number <= s.state.decided_upto {
        return Ok(false);
    }
    let (taker, number, _) = read_trade_keys(&item.record);
    // over, whatever its bit
    item.record.save(Trade { id: ZERO, quantity: 0, cost: 0, number: 0 })?;
    let offer_record = s.records.find(OFFER, &number.to_le_bytes())?;
    let offer: Offer = offer_record.load()?;
    let (buyer, seller) = if offer.side == 0 { (&offer.maker, taker) } else { (taker, &offer.maker) };
    let payer = s.records.find(BALANCE, &join(buyer, &offer.asset))?;
    let payee = s.records.find(BALANCE, &join(seller, &offer.asset))?;
    let (mut paying, mut paid): (Balance, Balance) = (payer.load()?, payee.load()?);
    let bought = s.records.find(POSITION, &join(buyer, &offer.series))?;
    let sold = s.records.find(POSITION, &join(seller, &offer.series))?;
    let quantity = i128::from(trade.quantity);
    let after_buying = bought.load::<Position>()?.get().checked_add(quantity);
    let after_selling = sold.load::<Position>()?.get().checked_sub(quantity);
    let (Some(after_buying), Some(after_selling)) = (after_buying, after_selling) else {
        return Ok(false);
    };
    let is_good = s.now < offer.valid_until.min(offer.expiry)
        && offer.left >= trade.quantity
        && paying.free >= trade.cost
        && paid.free.checked_add(trade.cost).is_some();
    if !is_good {
        return Ok(false);
    }
    offer_record.save(Offer { left: offer.left - trade.quantity, ..offer })?;
    paying.free -= trade.cost;
    paid.free += trade.cost;
    payer.save(paying)?;
    payee.save(paid)?;
    set_position(s, &bought, after_buying)?;
    set_position(s, &sold, after_selling)?;
    Ok(true)
}

fn decide_withdrawals(s: &mut Scene<'_>, mut r: Reader<'_>) -> Result<Judged> {
    r.word()?;
    // per record of an asset, by its place: what this packet has paid
    let in_packet = unsafe { table::<u128, MAX_ACCOUNTS>(DEBITS_AT) };
    let mut bitmap = ZERO;
    for index in 0..r.count()? {
        let item = read_decided_item(s, REQUEST, &mut r)?;
        if decide_withdrawal(s, &item, in_packet)? {
            set_bit(&mut bitmap, index);
        }
    }
    Ok(Ok(bitmap))
}

/// Whether the request was paid. One that was not stays open.
fn decide_withdrawal(s: &mut Scene<'_>, item: &Item, in_packet: &mut [u128; MAX_ACCOUNTS]) -> Result<bool> {
    let request: Request = item.record.load()?;
    if request.amount == 0 || request.id != item.id {
        return Ok(false);
    }
    let (account, id) = (item.record.get_first(), item.record.get_second());
    let payee = if account == &HOUSE { &s.state.get_set().treasurer } else { account };
    let place = s.records.find_index(ASSET, id)?;
    let asset_record = s.records.list[place];
    let mut asset = asset_record.load::<Asset>()?.at(s.now);
    let total = in_packet[place] + u128::from(request.amount);
    if !charge(&mut asset.withdrawal, s.now, request.amount, &asset.caps) {
        return Ok(false);
    }
    let from = s.records.find(BALANCE, &join(account, id))?;
    let to = s.records.find(BALANCE, &join(payee, id))?;
    let is_good = request.made_at.checked_add(DAY).is_some_and(|until| s.now <= until)
        && from.load::<Balance>()?.free >= request.amount
        && to.load::<Balance>()?.claimable.checked_add(request.amount).is_some()
        && total <= u128::from(asset.caps.per_packet);
    if !is_good {
        return Ok(false);
    }
    in_packet[place] = total;
    asset_record.save(asset)?;
    item.record.save(Request { id: ZERO, amount: 0, made_at: 0 })?;
    // one record after the other: payer and payee may be the same
    let mut paying: Balance = from.load()?;
    paying.free -= request.amount;
    from.save(paying)?;
    let mut paid: Balance = to.load()?;
    paid.claimable += request.amount;
    to.save(paid)?;
    Ok(true)
}

fn rotate_operators(s: &mut Scene<'_>, mut r: Reader<'_>) -> Result<Judged> {
    let (epoch, threshold, effective, treasurer) = (r.number()?, r.byte()?, r.number()?, r.word()?);
    let count = r.count()?;
    let operators: &[Address] = r.arrays(count)?;
    check!(s.state.epoch.checked_add(1) == Some(epoch), Epoch);
    check!(is_set(operators, threshold) && is_native(treasurer), Operators);
    check!(s.now.checked_add(s.state.delay).is_some_and(|earliest| effective >= earliest), Delay);
    let next: &mut OperatorSet = &mut s.state.sets[usize::from(1 - s.state.set)];
    next.treasurer = *treasurer;
    next.count = count as u64;
    next.addresses = [[0; 20]; MAX_OPERATORS];
    next.addresses[..count].copy_from_slice(operators);
    s.state.pending_at = effective;
    s.state.pending_threshold = u64::from(threshold);
    Ok(Ok(ZERO))
}

fn set_caps(s: &mut Scene<'_>, mut r: Reader<'_>) -> Result<Judged> {
    let record = s.records.get_of(r.byte()?, ASSET)?;
    let words = r.arrays::<32>(3)?;
    check!(is_native(record.get_first()), Asset);
    let mut amounts = [0; 3];
    for (amount, word) in amounts.iter_mut().zip(words) {
        let Some(number) = number_of(word) else {
            return Ok(Err(Reason::Range));
        };
        check!(number != 0, Range);
        *amount = number;
    }
    let next = Triple { per_packet: amounts[0], per_hour: amounts[1], per_day: amounts[2] };
    let asset = record.load::<Asset>()?.at(s.now);
    let old = asset.caps;
    let falls = Triple {
        per_packet: next.per_packet.min(old.per_packet),
        per_hour: next.per_hour.min(old.per_hour),
        per_day: next.per_day.min(old.per_day),
    };
    let is_falling =
        falls.per_packet == next.per_packet && falls.per_hour == next.per_hour && falls.per_day == next.per_day;
    if is_falling {
        let none = Triple { per_packet: 0, per_hour: 0, per_day: 0 };
        record.save(Asset { caps: next, pending_at: 0, next: none, ..asset })?;
    } else {
        // each falling cap falls at once, the whole triple follows
        let Some(pending_at) = s.now.checked_add(s.state.delay) else {
            return Ok(Err(Reason::Range));
        };
        record.save(Asset { caps: falls, pending_at, next, ..asset })?;
    }
    Ok(Ok(ZERO))
}
