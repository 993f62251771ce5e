//! What users call (protocol.md 4.1, vault.md 2). Every failed call reverts and changes nothing.
//!
//! Accounts of every call: 0 state of the vault, 1 this program, 2 the caller (signs, and pays for records that are
//! opened), 3 the system program, then those that the call names.

use pinocchio::{AccountView, Address as Key};

use crate::abi::{Reader, Writer};
use crate::host::set_value;
use crate::packet::{compute_pause_digest, emit, recover};
use crate::records::{
    create, find_record, open_record, Account, Asset, Balance, Id, Offer, Place, Record, Request, Series, Trade,
    Triple, ACCOUNT, ASSET, BALANCE, DUE, LISTED, OFFER, POSITION, REQUEST, SERIES, TRADE,
};
use crate::state::{cast_state, State, MAGIC, SEED, STATE_BYTES};
use crate::system::{find_token, pay_tokens, pull_tokens};
use crate::values::{
    compute_cost, compute_due, is_house, is_native, is_set, keccak, require, Address, Fail, Result, Word, CLAIMED,
    DEPOSITED, ESCAPED, ESCAPE_AFTER, HOUSE, LINKED, LONGEST_SERIES, M96, MAX_DELAY, PAUSED, SERIES_LISTED,
    TRADE_PENDING, WITHDRAWAL_REQUESTED,
};

const STATE: usize = 0;
const CALLER: usize = 2;

/// One call: where it runs, on what, and when.
pub struct Call<'a> {
    pub program: &'a Key,
    pub accounts: &'a [AccountView],
    pub state: &'a mut State,
    pub now: u64,
}

impl Call<'_> {
    fn get(&self, index: usize) -> Result<&AccountView> {
        self.accounts.get(index).ok_or(Fail::Record)
    }

    fn get_key(&self) -> &Key {
        self.accounts[STATE].address()
    }

    /// The account that signed.
    fn get_caller(&self) -> Result<&Word> {
        let caller = self.get(CALLER)?;
        require(caller.is_signer(), Fail::Signer)?;
        require(is_native(caller.address().as_array()), Fail::Account)?;
        Ok(caller.address().as_array())
    }

    fn get_place(&self, index: usize) -> Result<Place<'_>> {
        Ok(Place { account: self.get(index)?, state: self.get_key(), program: self.program })
    }

    #[inline(always)] // more arguments than registers
    fn find(&self, index: usize, tag: u8, keys: &[u8]) -> Result<Record> {
        find_record(&self.get_place(index)?, &Id { tag, keys })
    }

    #[inline(always)]
    fn open(&self, index: usize, tag: u8, keys: &[u8]) -> Result<Record> {
        open_record(&self.get_place(index)?, &Id { tag, keys }, self.get(CALLER)?)
    }

    fn require_not_paused(&self) -> Result<()> {
        require(self.state.paused == 0, Fail::Paused)
    }

    fn emit(&mut self, packet: &mut Writer) -> Result<()> {
        emit(self.program, &self.accounts[STATE], self.state, self.now, packet)
    }
}

/// Two words one after the other: the keys of a balance, a position or a request.
pub fn join(first: &Word, second: &Word) -> [u8; 64] {
    let mut keys = [0; 64];
    keys[..32].copy_from_slice(first);
    keys[32..].copy_from_slice(second);
    keys
}

fn join_trade(taker: &Word, offer: u64, nonce: u64) -> [u8; 48] {
    let mut keys = [0; 48];
    keys[..32].copy_from_slice(taker);
    keys[32..40].copy_from_slice(&offer.to_le_bytes());
    keys[40..].copy_from_slice(&nonce.to_le_bytes());
    keys
}

/// Create a vault. Nothing of this can be changed later but by certified packets.
///
/// Data: number u64, keccak256 of the chain's CAIP-2 text, threshold u8, n u8, n operators, treasurer, delay u64, count
/// of caps u8, then (asset, per packet u64, per hour u64, per day u64). Accounts 4 and on: records of these assets.
/// The program cannot know its cluster: who relies on a vault compares its id with the one that it should have.
pub fn create_vault(program: &Key, accounts: &[AccountView], now: u64, r: &mut Reader<'_>) -> Result<()> {
    let (number, chain) = (r.array::<8>()?, r.word()?);
    let (threshold, n) = (r.byte()?, r.count()?);
    let operators: &[Address] = r.arrays(n)?;
    let (treasurer, delay) = (r.word()?, r.number()?);
    let count = r.count()?;
    require(is_set(operators, threshold) && is_native(treasurer), Fail::Operators)?;
    require(delay <= MAX_DELAY, Fail::Delay)?;

    let [account, _, creator, ..] = accounts else {
        return Err(Fail::Record);
    };
    require(creator.is_signer(), Fail::Signer)?;
    require(!account.owned_by(program), Fail::Exists)?;
    let seeds: [&[u8]; 3] = [SEED, creator.address().as_array(), number];
    let (address, bump) = crate::host::find_address(&seeds, program)?;
    require(account.address().as_array() == &address, Fail::State)?;
    let place = Place { account, state: account.address(), program };
    create(&place, creator, STATE_BYTES as u64, &[SEED, creator.address().as_array(), number, &[bump]])?;
    let state = unsafe { cast_state(account) };
    state.magic = MAGIC;
    state.vault_id = keccak(&[chain, &address]);
    state.outbox_head = state.vault_id;
    state.accepted_at = now;
    state.delay = delay;
    state.creator = *creator.address().as_array();
    state.number = *number;
    state.bump = bump;
    state.threshold = threshold;
    state.sets[0].treasurer = *treasurer;
    state.sets[0].count = n as u64;
    state.sets[0].addresses[..n].copy_from_slice(operators);

    let call = Call { program, accounts, state, now };
    for index in 0..count {
        let asset = r.word()?;
        let caps = Triple { per_packet: r.number()?, per_hour: r.number()?, per_day: r.number()? };
        require(is_native(asset), Fail::Asset)?;
        require(caps.per_packet != 0 && caps.per_hour != 0 && caps.per_day != 0, Fail::Caps)?;
        let record = call.open(4 + index, ASSET, asset)?;
        let old: Asset = record.load()?;
        require(!old.has_caps(), Fail::Asset)?;
        record.save(Asset { caps, ..old })?;
    }
    r.done()
}

/// Open a record for anybody, at the caller's expense. Data: tag u8, keys. Account 4: the record.
pub fn open(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    c.get_caller()?;
    let tag = r.byte()?;
    // the others are opened by the calls that fill them
    let keys = match tag {
        BALANCE | POSITION => r.take(64)?,
        ACCOUNT | ASSET => r.take(32)?,
        _ => return Err(Fail::Malformed),
    };
    r.done()?;
    require(!c.get(4)?.owned_by(c.program), Fail::Exists)?;
    c.open(4, tag, keys).map(|_| ())
}

/// Pull tokens that the caller holds. Data: asset, amount u64, beneficiary. Accounts: 4 asset, 5 balance of the
/// beneficiary, 6 token account of the caller, 7 that of the vault, 8 token program.
pub fn deposit(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    let (asset, amount, beneficiary) = (r.word()?, r.number()?, r.word()?);
    r.done()?;
    c.get_caller()?;
    c.require_not_paused()?;
    require(amount != 0, Fail::Amount)?;
    let known: Asset = c.find(4, ASSET, asset)?.load()?;
    require(known.at(c.now).has_caps(), Fail::Asset)?;
    require(is_native(beneficiary) || is_house(beneficiary), Fail::Account)?;
    let vault = find_token(c.get(7)?, c.get_key().as_array(), asset)?;
    let before = vault.get_amount();
    pull_tokens([c.get(8)?, c.get(6)?, c.get(7)?, c.get(CALLER)?], amount)?;
    let arrived = vault.get_amount().checked_sub(before).ok_or(Fail::Amount)?;
    require(arrived != 0, Fail::Amount)?;
    let record = c.open(5, BALANCE, &join(beneficiary, asset))?;
    let mut balance: Balance = record.load()?;
    balance.free = balance.free.checked_add(arrived).ok_or(Fail::Overflow)?;
    record.save(balance)?;
    let mut packet = Writer::of_outbox(DEPOSITED)?;
    packet.word(beneficiary)?;
    packet.word(asset)?;
    packet.number(arrived)?;
    c.emit(&mut packet)
}

/// Ask that the caller's account belongs to a portfolio; the ledger judges the signature. Data: portfolio, valid_until
/// u64, signature (65 bytes).
pub fn link(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    let (portfolio, valid_until) = (r.word()?, r.number()?);
    let (rr, ss, v) = (r.word()?, r.word()?, r.byte()?);
    r.done()?;
    let mut packet = Writer::of_outbox(LINKED)?;
    packet.word(c.get_caller()?)?;
    packet.word(portfolio)?;
    packet.number(valid_until)?;
    packet.word(rr)?;
    packet.word(ss)?;
    packet.number(u64::from(v))?;
    c.emit(&mut packet)
}

/// Whether a number in two halves is above 0 and below 2^96.
fn is_wide_amount((low, high): (u64, u64)) -> bool {
    (low != 0 || high != 0) && high <= (M96 >> 64) as u64
}

/// Record a series and the due of its quote class; anyone, once. The value is its id.
///
/// Data: underlying, expiry u64, strike_e8 u128, right u8, quote class, multiplier_e8 u128, price source, twap_seconds
/// u32. Accounts: 4 series, 5 due.
pub fn list_series(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    let (underlying, expiry) = (r.word()?, r.number()?);
    let strike = (r.number()?, r.number()?);
    let (right, class) = (r.byte()?, r.word()?);
    let multiplier = (r.number()?, r.number()?);
    let (source, twap) = (r.word()?, u32::from_le_bytes(*r.array()?));
    r.done()?;
    c.get_caller()?;
    let latest = c.now.checked_add(LONGEST_SERIES).ok_or(Fail::Expiry)?;
    require(c.now < expiry && expiry <= latest, Fail::Expiry)?;
    let is_sound = is_wide_amount(strike) && is_wide_amount(multiplier) && right <= 1 && twap != 0;
    require(is_sound, Fail::Definition)?;

    let mut packet = Writer::of_outbox(SERIES_LISTED)?;
    packet.word(&[0; 32])?; // the id, known when the rest is written
    packet.word(underlying)?;
    packet.number(expiry)?;
    packet.wide(strike.0, strike.1)?;
    packet.number(u64::from(right))?;
    packet.word(class)?;
    packet.wide(multiplier.0, multiplier.1)?;
    packet.word(source)?;
    packet.number(u64::from(twap))?;
    let id = keccak(&[&packet.get_value()[64..]]);
    packet.replace_word(1, &id);

    let record = c.open(4, SERIES, &id)?;
    let known: Series = record.load()?;
    require(known.status != LISTED, Fail::Exists)?;
    record.save(Series { status: LISTED, expiry })?;
    let due = c.open(5, SERIES, &compute_due(class))?;
    due.save(Series { status: DUE, expiry: 0 })?;
    c.emit(&mut packet)?;
    set_value(&id);
    Ok(())
}

/// Rest an offer; reserves nothing. The value is its number (8 bytes, little-endian).
///
/// Data: side u8, series, asset, quantity u64, premium per contract u64, valid_until u64. Accounts: 4 series, 5 asset, 6
/// the record of the next number: a call that another offer has overtaken fails and is sent again.
pub fn offer(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    let (side, series, asset) = (r.byte()?, r.word()?, r.word()?);
    let (quantity, premium_per_contract, valid_until) = (r.number()?, r.number()?, r.number()?);
    r.done()?;
    let maker = *c.get_caller()?;
    c.require_not_paused()?;
    require(side <= 1, Fail::Side)?;
    let listed: Series = c.find(4, SERIES, series)?.load()?;
    require(listed.status == LISTED, Fail::Series)?;
    let known: Asset = c.find(5, ASSET, asset)?.load()?;
    require(known.at(c.now).has_caps(), Fail::Asset)?;
    require(quantity != 0 && premium_per_contract != 0, Fail::Amount)?;
    require(c.now < valid_until.min(listed.expiry), Fail::Expired)?;
    let number = c.state.offer_count.checked_add(1).ok_or(Fail::Overflow)?;
    let record = c.open(6, OFFER, &number.to_le_bytes())?;
    record.save(Offer {
        maker,
        series: *series,
        asset: *asset,
        quantity,
        left: quantity,
        premium_per_contract,
        valid_until,
        expiry: listed.expiry,
        side: u32::from(side),
        cancelled: 0,
    })?;
    c.state.offer_count = number;
    set_value(&number.to_le_bytes());
    Ok(())
}

fn load_offer(c: &Call<'_>, index: usize, number: u64) -> Result<(Record, Offer)> {
    let record = c.find(index, OFFER, &number.to_le_bytes())?;
    let offer: Offer = record.load()?;
    require(offer.quantity != 0, Fail::Unknown)?;
    Ok((record, offer))
}

/// The maker stops later takes; a taken trade lives on. Data: offer u64. Account 4: the offer.
pub fn cancel(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    let number = r.number()?;
    r.done()?;
    let (record, offer) = load_offer(c, 4, number)?;
    require(&offer.maker == c.get_caller()?, Fail::Owner)?;
    require(offer.cancelled == 0 && offer.left != 0, Fail::Closed)?;
    record.save(Offer { cancelled: 1, ..offer })
}

/// Take (part of) an offer; reserves nothing, the clearing decides. The value is the trade's id.
///
/// Data: offer u64, quantity u64, nonce u64, for the house u8. Accounts: 4 offer, 5 trade, 6 balance of the buyer.
pub fn take(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    let (number, quantity, nonce, for_house) = (r.number()?, r.number()?, r.number()?, r.flag()?);
    r.done()?;
    let taker = if for_house { HOUSE } else { *c.get_caller()? };
    c.get_caller()?;
    c.require_not_paused()?;
    let (_, o) = load_offer(c, 4, number)?;
    require(o.cancelled == 0 && o.left != 0, Fail::Closed)?;
    require(c.now < o.valid_until.min(o.expiry), Fail::Expired)?;
    require(taker != o.maker, Fail::SelfTrade)?;
    require(quantity != 0 && quantity <= o.left, Fail::Amount)?;
    let keys = join_trade(&taker, number, nonce);
    let before: Trade = c.find(5, TRADE, &keys)?.load()?;
    require(before.number <= c.state.decided_upto, Fail::Open)?;
    let cost = compute_cost(quantity, o.premium_per_contract).ok_or(Fail::Overflow)?;
    let (buyer, seller) = if o.side == 0 { (&o.maker, &taker) } else { (&taker, &o.maker) };
    let cash: Balance = c.find(6, BALANCE, &join(buyer, &o.asset))?.load()?;
    require(cash.free >= cost, Fail::Cash)?;
    let record = c.open(5, TRADE, &keys)?;
    let mut packet = Writer::of_outbox(TRADE_PENDING)?;
    packet.word(buyer)?;
    packet.word(seller)?;
    packet.word(&o.series)?;
    packet.word(&o.asset)?;
    packet.number(quantity)?;
    packet.number(cost)?;
    packet.number(o.valid_until)?;
    packet.word(&taker)?;
    packet.number(number)?;
    packet.number(nonce)?;
    c.emit(&mut packet)?;
    let id = c.state.outbox_head;
    record.save(Trade { id, quantity, cost, number: c.state.outbox_sequence })?;
    set_value(&id);
    Ok(())
}

/// Ask for free cash; reserves nothing, replaces an older request, lapses after a day. The value is the request's id.
///
/// Data: asset, amount u64, for the house u8. Accounts: 4 asset, 5 request.
pub fn request_withdrawal(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    let (asset, amount, for_house) = (r.word()?, r.number()?, r.flag()?);
    r.done()?;
    let mut account = *c.get_caller()?;
    if for_house {
        require(account == c.state.get_set().treasurer, Fail::Owner)?;
        account = HOUSE;
    }
    require(amount != 0, Fail::Amount)?;
    let known: Asset = c.find(4, ASSET, asset)?.load()?;
    require(known.at(c.now).has_caps(), Fail::Asset)?;
    let record = c.open(5, REQUEST, &join(&account, asset))?;
    emit_amount(c, WITHDRAWAL_REQUESTED, (&account, asset), amount)?;
    let id = c.state.outbox_head;
    record.save(Request { id, amount, made_at: c.now })?;
    set_value(&id);
    Ok(())
}

fn emit_amount(c: &mut Call<'_>, kind: u64, keys: (&Word, &Word), amount: u64) -> Result<()> {
    let mut packet = Writer::of_outbox(kind)?;
    packet.word(keys.0)?;
    packet.word(keys.1)?;
    packet.number(amount)?;
    c.emit(&mut packet)
}

/// Pay what an account may claim to its own canonical token account; anyone may call. Data: account, asset. Accounts:
/// 4 balance, 5 token account of the vault, 6 that of the owner, 7 token program.
pub fn claim(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    let (account, asset) = (r.word()?, r.word()?);
    r.done()?;
    require(is_native(account), Fail::Account)?;
    let record = c.find(4, BALANCE, &join(account, asset))?;
    let balance: Balance = record.load()?;
    let amount = balance.claimable;
    require(amount != 0, Fail::Amount)?;
    record.save(Balance { claimable: 0, ..balance })?;
    find_token(c.get(5)?, c.get_key().as_array(), asset)?;
    find_token(c.get(6)?, account, asset)?;
    emit_amount(c, CLAIMED, (account, asset), amount)?;
    pay_tokens([c.get(7)?, c.get(5)?, c.get(6)?, c.get(STATE)?], amount, c.state)
}

/// One operator, once an epoch, stops deposits, offers, takes and settlement; anyone may bring its signature. Data:
/// signature (65 bytes).
pub fn pause(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    let signature = r.array::<65>()?;
    r.done()?;
    require(c.state.paused == 0, Fail::Paused)?;
    let digest = compute_pause_digest(&c.state.vault_id, c.state.epoch);
    let signer = recover(&digest, signature).map_err(|_| Fail::Signature)?;
    let operators = c.state.get_set().get_operators();
    let index = operators.iter().position(|operator| *operator == signer).ok_or(Fail::Signature)?;
    let bit = 1u32 << index;
    require(c.state.pause_used & bit == 0, Fail::Used)?;
    c.state.paused = 1;
    c.state.pause_used |= bit;
    let mut packet = Writer::of_outbox(PAUSED)?;
    packet.address(&signer)?;
    c.emit(&mut packet)
}

/// After 30 days without an inbox packet an account without a negative position may leave with its free cash. Data:
/// asset. Accounts: 4 balance, 5 account.
pub fn escape(c: &mut Call<'_>, r: &mut Reader<'_>) -> Result<()> {
    let asset = r.word()?;
    r.done()?;
    let account = *c.get_caller()?;
    let earliest = c.state.accepted_at.checked_add(ESCAPE_AFTER).ok_or(Fail::Early)?;
    require(c.now >= earliest, Fail::Early)?;
    let positions: Account = c.find(5, ACCOUNT, &account)?.load()?;
    require(positions.negatives == 0, Fail::Positions)?;
    let record = c.find(4, BALANCE, &join(&account, asset))?;
    let balance: Balance = record.load()?;
    let amount = balance.free;
    require(amount != 0, Fail::Amount)?;
    let claimable = balance.claimable.checked_add(amount).ok_or(Fail::Overflow)?;
    record.save(Balance { free: 0, claimable })?;
    emit_amount(c, ESCAPED, (&account, asset), amount)
}
