//! What a certified packet does: checks in the order of protocol.md 3 and vault.md 3, then the whole body, then one Ack.
//!
//! Nothing here calls another contract, the bank or a submessage.

use std::collections::BTreeMap;

use cosmwasm_std::{Api, Event, Storage};

use crate::abi::{decode_body, Body, Leg, TradeItem, WithdrawalItem, Writer};
use crate::error::{fail, require, Result};
use crate::msg::Packet;
use crate::packet::{compute_client, compute_commitment, compute_packet_digest, emit, inbox_event, recover};
use crate::state::{
    has_caps, load_balance, load_caps, load_config, load_control, load_cursors, load_negatives, load_offer,
    load_operators, load_position, load_request, load_series, load_trade, load_window, remove_request, remove_trade,
    save_balance, save_caps, save_control, save_cursors, save_negatives, save_offer, save_operators, save_position,
    save_window, Balance, Caps, Control, OperatorSet, Series, Triple, Window, SETTLEMENT, WITHDRAWAL,
};
use crate::values::{
    is_amount, is_house, is_native, is_set, number_of, signed_of, Address, Reason, Word, ACK, CLEARING, DAY, DONE,
    ENCODING, HOUR, HOUSE, M96, PORT, REFUSED, VERSION,
};

/// Bit i of a decision is item i, least significant first.
type Bitmap = Word;
type Judged<T> = std::result::Result<T, Reason>;

fn check(condition: bool, reason: Reason) -> Judged<()> {
    if condition {
        Ok(())
    } else {
        Err(reason)
    }
}

/// Take the next packet of the clearing. Returns the two events: the packet, and its Ack.
pub fn recv(
    s: &mut dyn Storage,
    api: &dyn Api,
    now: u64,
    packet: &Packet,
    signatures: &[impl AsRef<[u8]>],
) -> Result<[Event; 2]> {
    let mut cursors = load_cursors(s);
    let next = cursors.inbox_sequence.checked_add(1).ok_or_else(|| fail("sequence"))?;
    require(packet.sequence == next, "sequence")?;

    let config = load_config(s);
    let client = compute_client(&config.vault_id);
    let [payload] = packet.payloads.as_slice() else {
        return Err(fail("envelope"));
    };
    let is_envelope = packet.source_client == client
        && packet.destination_client == CLEARING
        && payload.source_port == PORT
        && payload.destination_port == PORT
        && payload.version == VERSION
        && payload.encoding == ENCODING;
    require(is_envelope, "envelope")?;

    let latest = now.checked_add(DAY).ok_or_else(|| fail("timeout"))?;
    require(now < packet.timeout && packet.timeout <= latest, "timeout")?;

    let control = load_control(s, now);
    let set = load_operators(s, control.set);
    let commitment = compute_commitment(CLEARING, packet.timeout, &payload.value);
    let digest = compute_packet_digest(&config.vault_id, control.epoch, next, &commitment);
    verify_signatures(api, &digest, signatures, &control, &set.operators)?;
    let body = decode_body(&payload.value).ok_or_else(|| fail("malformed"))?;

    let arrived = inbox_event(next, packet.timeout, &client, &payload.value);
    cursors.inbox_sequence = next;
    cursors.accepted_at = now;
    save_cursors(s, &cursors);

    let (status, reason, bitmap) = match apply(s, now, config.delay, &control, &set, &body) {
        Ok(bitmap) => (DONE, 0, bitmap),
        Err(reason) => (REFUSED, reason as u64, [0; 32]),
    };
    let ack = Writer::of_kind(ACK)
        .number(next)
        .word(&commitment)
        .number(u64::from(body.kind()))
        .number(status)
        .number(reason)
        .word(&bitmap);
    let (_, sent) = emit(s, now, &ack.done())?;
    Ok([arrived, sent])
}

/// Exactly m signatures of distinct operators of the set in force, ascending by address.
fn verify_signatures(
    api: &dyn Api,
    digest: &Word,
    signatures: &[impl AsRef<[u8]>],
    control: &Control,
    operators: &[Address],
) -> Result<()> {
    require(signatures.len() == usize::from(control.threshold), "signatures")?;
    let mut last: Address = [0; 20];
    for signature in signatures {
        let signer = recover(api, digest, signature.as_ref())?;
        require(signer > last && operators.contains(&signer), "signatures")?;
        last = signer;
    }
    Ok(())
}

/// Apply a body, or say why not with nothing written.
fn apply(
    s: &mut dyn Storage,
    now: u64,
    delay: u64,
    control: &Control,
    set: &OperatorSet,
    body: &Body,
) -> Judged<Bitmap> {
    if matches!(body, Body::Execute { .. } | Body::DecideTrades { .. } | Body::DecideWithdrawals { .. }) {
        check(!control.paused, Reason::Paused)?;
    }
    match body {
        Body::Execute { legs, .. } => execute(s, now, legs)?,
        Body::DecideTrades { upto, items, .. } => return decide_trades(s, now, *upto, items),
        Body::DecideWithdrawals { items, .. } => return Ok(decide_withdrawals(s, now, &set.treasurer, items)),
        Body::RotateOperators { epoch, threshold, effective, treasurer, operators } => {
            check(control.epoch.checked_add(1) == Some(*epoch), Reason::Epoch)?;
            check(is_set(operators, *threshold) && is_native(treasurer), Reason::Operators)?;
            check(now.checked_add(delay).is_some_and(|earliest| *effective >= earliest), Reason::Delay)?;
            let next = OperatorSet { treasurer: *treasurer, operators: operators.clone() };
            save_operators(s, 1 - control.set, &next);
            let new = Control { pending_at: *effective, pending_threshold: *threshold, ..control.clone() };
            save_control(s, &new);
        }
        Body::SetCaps { asset, per_packet, per_hour, per_day } => {
            set_caps(s, now, delay, asset, [per_packet, per_hour, per_day])?;
        }
        Body::Unpause {} => {
            check(control.paused, Reason::NotPaused)?;
            let at = now.checked_add(delay).ok_or(Reason::Delay)?;
            save_control(s, &Control { unpause_at: at, ..control.clone() });
        }
    }
    Ok([0; 32])
}

/// A leg that passed its checks, with the free cash or position after it.
struct Move<'a> {
    leg: &'a Leg,
    new: i128,
}

fn execute(s: &mut dyn Storage, now: u64, legs: &[Leg]) -> Judged<()> {
    let mut moves: Vec<Move<'_>> = Vec::with_capacity(legs.len());
    let mut last: Option<(u8, &Word, &Word)> = None;
    let mut sums: BTreeMap<(u8, &Word), i128> = BTreeMap::new();
    let mut debits: BTreeMap<&Word, u128> = BTreeMap::new();
    let mut assets: BTreeMap<&Word, bool> = BTreeMap::new();
    let mut series: BTreeMap<&Word, Option<Series>> = BTreeMap::new();
    for leg in legs {
        let is_house = is_house(&leg.account);
        check(leg.kind <= 1, Reason::LegKind)?;
        check(leg.delta != [0; 32], Reason::Zero)?;
        let delta = signed_of(&leg.delta).ok_or(Reason::Range)?;
        check(is_house || is_native(&leg.account), Reason::Account)?;
        let place = (leg.kind, &leg.account, &leg.id);
        check(last.is_none_or(|before| before < place), Reason::Order)?;
        last = Some(place);
        let new = if leg.kind == 0 {
            let known = *assets.entry(&leg.id).or_insert_with(|| has_caps(s, &leg.id, now));
            check(known, Reason::Asset)?;
            // both are below 2^96
            let new = load_balance(s, &leg.account, &leg.id).free as i128 + delta;
            check(new >= 0, Reason::Cash)?;
            check(new.unsigned_abs() <= M96, Reason::Overflow)?;
            if delta < 0 && !is_house {
                *debits.entry(&leg.id).or_insert(0) += delta.unsigned_abs();
            }
            new
        } else {
            let known = series.entry(&leg.id).or_insert_with(|| load_series(s, &leg.id)).ok_or(Reason::Series)?;
            let old = load_position(s, &leg.account, &leg.id);
            let new = old.checked_add(delta);
            if known != Series::Due && !is_house {
                // only towards 0: against the sign of the position, and no further than 0
                let is_towards = old != 0 && (old > 0) != (delta > 0);
                check(is_towards && delta.unsigned_abs() <= old.unsigned_abs(), Reason::Direction)?;
            }
            new.ok_or(Reason::Overflow)?
        };
        *sums.entry((leg.kind, &leg.id)).or_insert(0) += delta;
        moves.push(Move { leg, new });
    }
    check(sums.values().all(|sum| *sum == 0), Reason::Sum)?;
    let mut windows: Vec<(&Word, Window)> = Vec::with_capacity(debits.len());
    for (asset, debit) in &debits {
        let caps = load_caps(s, asset, now).now;
        let window = charge(&load_window(s, SETTLEMENT, asset), now, *debit, &caps).ok_or(Reason::Cap)?;
        check(*debit <= caps.per_packet, Reason::Cap)?;
        windows.push((*asset, window));
    }

    // every check is passed: write
    for (asset, window) in &windows {
        save_window(s, SETTLEMENT, asset, window);
    }
    for Move { leg, new } in &moves {
        if leg.kind == 0 {
            let old = load_balance(s, &leg.account, &leg.id);
            save_balance(s, &leg.account, &leg.id, &Balance { free: new.unsigned_abs(), ..old });
        } else {
            set_position(s, &leg.account, &leg.id, *new);
        }
    }
    Ok(())
}

/// The window after `amount` more, or None if a cap would be passed.
fn charge(window: &Window, now: u64, amount: u128, caps: &Triple) -> Option<Window> {
    let (hour, day) = (now / HOUR, now / DAY);
    let used_in_hour = if window.hour == hour { window.hour_used } else { 0 };
    let used_in_day = if window.day == day { window.day_used } else { 0 };
    let hour_used = used_in_hour.checked_add(amount)?;
    let day_used = used_in_day.checked_add(amount)?;
    (hour_used <= caps.per_hour && day_used <= caps.per_day).then_some(Window { hour, hour_used, day, day_used })
}

fn set_position(s: &mut dyn Storage, account: &Word, series: &Word, new: i128) {
    if !is_house(account) {
        let was_negative = load_position(s, account, series) < 0;
        let is_negative = new < 0;
        if was_negative != is_negative {
            let count = load_negatives(s, account);
            save_negatives(s, account, if is_negative { count + 1 } else { count - 1 });
        }
    }
    save_position(s, account, series, new);
}

fn set_bit(bitmap: &mut Bitmap, index: usize) {
    bitmap[31 - index / 8] |= 1 << (index % 8);
}

fn decide_trades(s: &mut dyn Storage, now: u64, upto: u64, items: &[TradeItem]) -> Judged<Bitmap> {
    let mut cursors = load_cursors(s);
    check(upto <= cursors.outbox_sequence && upto >= cursors.decided_upto, Reason::Range)?;
    let mut bitmap = [0; 32];
    for (index, item) in items.iter().enumerate() {
        if decide_trade(s, now, cursors.decided_upto, item) {
            set_bit(&mut bitmap, index);
        }
    }
    cursors.decided_upto = upto;
    save_cursors(s, &cursors);
    Ok(bitmap)
}

/// Whether the trade took effect. An id that is not that of the open record names nothing.
fn decide_trade(s: &mut dyn Storage, now: u64, decided_upto: u64, item: &TradeItem) -> bool {
    let Some(trade) = load_trade(s, &item.taker, item.offer, item.nonce) else {
        return false;
    };
    if trade.id != item.id || trade.number <= decided_upto {
        return false;
    }
    remove_trade(s, &item.taker, item.offer, item.nonce); // over, whatever its bit
    let Some(mut offer) = load_offer(s, item.offer) else {
        return false;
    };
    let (buyer, seller) = if offer.side == 0 { (offer.maker, item.taker) } else { (item.taker, offer.maker) };
    let mut paying = load_balance(s, &buyer, &offer.asset);
    let mut paid = load_balance(s, &seller, &offer.asset);
    // a quantity is below 2^96
    let quantity = trade.quantity as i128;
    let bought = load_position(s, &buyer, &offer.series).checked_add(quantity);
    let sold = load_position(s, &seller, &offer.series).checked_sub(quantity);
    let (Some(bought), Some(sold)) = (bought, sold) else {
        return false;
    };
    let is_good = now < offer.valid_until.min(offer.expiry)
        && offer.left >= trade.quantity
        && paying.free >= trade.cost
        && paid.free + trade.cost <= M96;
    if !is_good {
        return false;
    }
    offer.left -= trade.quantity;
    save_offer(s, item.offer, &offer);
    paying.free -= trade.cost;
    paid.free += trade.cost;
    save_balance(s, &buyer, &offer.asset, &paying);
    save_balance(s, &seller, &offer.asset, &paid);
    set_position(s, &buyer, &offer.series, bought);
    set_position(s, &seller, &offer.series, sold);
    true
}

fn decide_withdrawals(s: &mut dyn Storage, now: u64, treasurer: &Word, items: &[WithdrawalItem]) -> Bitmap {
    let mut bitmap = [0; 32];
    let mut in_packet: BTreeMap<Word, u128> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        if decide_withdrawal(s, now, treasurer, item, &mut in_packet) {
            set_bit(&mut bitmap, index);
        }
    }
    bitmap
}

/// Whether the request was paid. One that was not stays open.
fn decide_withdrawal(
    s: &mut dyn Storage,
    now: u64,
    treasurer: &Word,
    item: &WithdrawalItem,
    in_packet: &mut BTreeMap<Word, u128>,
) -> bool {
    let Some(request) = load_request(s, &item.account, &item.asset) else {
        return false;
    };
    if request.id != item.id {
        return false;
    }
    let amount = request.amount;
    let payee = if item.account == HOUSE { treasurer } else { &item.account };
    // items below a cap each: the sum stays far from 2^128
    let total = in_packet.get(&item.asset).copied().unwrap_or(0) + amount;
    let caps = load_caps(s, &item.asset, now).now;
    let Some(window) = charge(&load_window(s, WITHDRAWAL, &item.asset), now, amount, &caps) else {
        return false;
    };
    let is_good = request.made_at.checked_add(DAY).is_some_and(|until| now <= until)
        && load_balance(s, &item.account, &item.asset).free >= amount
        && load_balance(s, payee, &item.asset).claimable + amount <= M96
        && total <= caps.per_packet;
    if !is_good {
        return false;
    }
    in_packet.insert(item.asset, total);
    save_window(s, WITHDRAWAL, &item.asset, &window);
    remove_request(s, &item.account, &item.asset);
    let mut from = load_balance(s, &item.account, &item.asset);
    from.free -= amount;
    save_balance(s, &item.account, &item.asset, &from);
    let mut to = load_balance(s, payee, &item.asset);
    to.claimable += amount;
    save_balance(s, payee, &item.asset, &to);
    true
}

fn set_caps(s: &mut dyn Storage, now: u64, delay: u64, asset: &Word, words: [&Word; 3]) -> Judged<()> {
    check(is_native(asset), Reason::Asset)?;
    let mut amounts = [0; 3];
    for (amount, word) in amounts.iter_mut().zip(words) {
        *amount = number_of(word).filter(|number| is_amount(*number)).ok_or(Reason::Range)?;
    }
    let [per_packet, per_hour, per_day] = amounts;
    let next = Triple { per_packet, per_hour, per_day };
    let old = load_caps(s, asset, now).now;
    let falls = Triple {
        per_packet: per_packet.min(old.per_packet),
        per_hour: per_hour.min(old.per_hour),
        per_day: per_day.min(old.per_day),
    };
    let caps = if falls == next {
        Caps { now: next, ..Caps::default() }
    } else {
        // each falling cap falls at once, the whole triple follows
        Caps { now: falls, pending_at: now.checked_add(delay).ok_or(Reason::Range)?, next }
    };
    save_caps(s, asset, &caps);
    Ok(())
}
