//! What users call (protocol.md 4.1, vault.md 2). Every failed call reverts and changes nothing.

use cosmwasm_std::{
    to_json_binary, Addr, Api, BankMsg, Binary, CanonicalAddr, Coin, CosmosMsg, DepsMut, Env, MessageInfo, Response,
    Storage, SubMsg, Uint128, Uint256, WasmMsg,
};

use crate::abi::Writer;
use crate::error::{fail, fail_with, require, Result};
use crate::msg::{Definition, Hex, TokenBalance, TokenMsg, TokenQuery};
use crate::packet::{compute_pause_digest, emit, recover};
use crate::state::{
    has_caps, load_balance, load_config, load_control, load_cursors, load_denom, load_lock, load_negatives, load_offer,
    load_operators, load_series, load_trade, remove_lock, save_balance, save_control, save_cursors, save_denom,
    save_lock, save_offer, save_request, save_series, save_trade, Lock, Offer, Request, Series, Trade,
};
use crate::values::{
    compute_denom_asset, compute_due, is_amount, is_house, is_native, keccak, left_padded, Word, CLAIMED, CONTRACT,
    DEPOSITED, ESCAPED, ESCAPE_AFTER, HOUSE, LINKED, LONGEST_SERIES, M96, MAX_DENOM_BYTES, PAUSED, SERIES_LISTED,
    TRADE_PENDING, WITHDRAWAL_REQUESTED,
};

/// Reply of a cw20 deposit.
pub const REPLY_DEPOSIT: u64 = 1;
/// Reply of a payment.
pub const REPLY_CLAIM: u64 = 2;

/// Account of an address: its canonical form, left-padded. A long one that would read as a short one has no account.
pub fn account_of(api: &dyn Api, address: &Addr) -> Result<Word> {
    let canonical = api.addr_canonicalize(address.as_str()).map_err(|e| fail_with("account", e))?;
    let account = left_padded(&canonical).ok_or_else(|| fail("account"))?;
    let is_short = account[..12] == [0; 12];
    require(canonical.len() == if is_short { 20 } else { 32 } && is_native(&account), "account")?;
    Ok(account)
}

/// Address of a native account or of a cw20 asset.
pub fn address_of(api: &dyn Api, account: &Word) -> Result<Addr> {
    let bytes = if account[..12] == [0; 12] { &account[12..] } else { &account[..] };
    api.addr_humanize(&CanonicalAddr::from(bytes)).map_err(|e| fail_with("account", e))
}

fn json<T: serde::Serialize>(value: &T) -> Result<Binary> {
    to_json_binary(value).map_err(|e| fail_with("json", e))
}

fn require_open(s: &dyn Storage, now: u64) -> Result<()> {
    require(!load_control(s, now).paused, "paused")
}

fn query_balance(deps: &DepsMut<'_>, token: &Addr, owner: &Addr) -> Result<u128> {
    let query = TokenQuery::Balance { address: owner.to_string() };
    let answer: TokenBalance = deps.querier.query_wasm_smart(token, &query).map_err(|e| fail_with("token", e))?;
    Ok(answer.balance.u128())
}

/// Credit what really arrived. Returns the response with the packet.
fn credit(s: &mut dyn Storage, now: u64, beneficiary: &Word, asset: &Word, arrived: u128) -> Result<Response> {
    require(is_amount(arrived), "amount")?;
    let mut balance = load_balance(s, beneficiary, asset);
    balance.free += arrived;
    require(balance.free <= M96, "overflow")?;
    save_balance(s, beneficiary, asset, &balance);
    let body = Writer::of_kind(DEPOSITED).word(beneficiary).word(asset).amount(arrived);
    let (_, event) = emit(s, now, &body.done())?;
    Ok(Response::new().add_event(event))
}

/// Take in attached coins of a registered denom, or pull a cw20 that the caller has allowed.
pub fn deposit(
    deps: DepsMut<'_>,
    env: &Env,
    info: &MessageInfo,
    asset: &Word,
    amount: u128,
    beneficiary: &Word,
) -> Result<Response> {
    let now = env.block.time.seconds();
    require_open(deps.storage, now)?;
    require(is_amount(amount), "amount")?;
    require(has_caps(deps.storage, asset, now), "asset")?;
    require(is_native(beneficiary) || is_house(beneficiary), "account")?;
    if let Some(denom) = load_denom(deps.storage, asset) {
        let [coin] = info.funds.as_slice() else {
            return Err(fail("funds"));
        };
        require(coin.denom == denom && coin.amount == Uint256::from(amount), "funds")?;
        return credit(deps.storage, now, beneficiary, asset, amount);
    }
    require(info.funds.is_empty(), "funds")?;
    // the id of a coin that nobody registered is the address of no token: the query fails
    let token = address_of(deps.api, asset).map_err(|_| fail("denom"))?;
    let before = query_balance(&deps, &token, &env.contract.address)?;
    save_lock(deps.storage, &Lock::Deposit { beneficiary: *beneficiary, asset: *asset, before });
    let pull = TokenMsg::TransferFrom {
        owner: info.sender.to_string(),
        recipient: env.contract.address.to_string(),
        amount: Uint128::new(amount),
    };
    let call = WasmMsg::Execute { contract_addr: token.into_string(), msg: json(&pull)?, funds: vec![] };
    Ok(Response::new().add_submessage(SubMsg::reply_on_success(call, REPLY_DEPOSIT)))
}

/// What follows a token's or the bank's success: the lock goes, and a deposit is credited by what the token says now.
pub fn reply(deps: DepsMut<'_>, env: &Env, id: u64) -> Result<Response> {
    let lock = load_lock(deps.storage);
    remove_lock(deps.storage);
    match (id, lock) {
        (REPLY_CLAIM, Some(Lock::Claim)) => Ok(Response::new()),
        (REPLY_DEPOSIT, Some(Lock::Deposit { beneficiary, asset, before })) => {
            let token = address_of(deps.api, &asset)?;
            let after = query_balance(&deps, &token, &env.contract.address)?;
            let arrived = after.checked_sub(before).ok_or_else(|| fail("amount"))?;
            credit(deps.storage, env.block.time.seconds(), &beneficiary, &asset, arrived)
        }
        _ => Err(fail("reply")),
    }
}

/// Ask that the caller's account belongs to `portfolio`; the ledger judges the signature.
pub fn link(
    s: &mut dyn Storage,
    now: u64,
    account: &Word,
    portfolio: &Word,
    valid_until: u64,
    signature: &[u8],
) -> Result<Response> {
    require(signature.len() == 65, "signature")?;
    let r: Word = signature[..32].try_into().expect("32 bytes");
    let ss: Word = signature[32..64].try_into().expect("32 bytes");
    let body = Writer::of_kind(LINKED).word(account).word(portfolio).number(valid_until);
    let (_, event) = emit(s, now, &body.word(&r).word(&ss).number(u64::from(signature[64])).done())?;
    Ok(Response::new().add_event(event))
}

/// Record a series and the due of its quote class; anyone, once. The value is its id.
pub fn list_series(s: &mut dyn Storage, now: u64, d: &Definition) -> Result<Response> {
    let latest = now.checked_add(LONGEST_SERIES).ok_or_else(|| fail("expiry"))?;
    require(now < d.expiry && d.expiry <= latest, "expiry")?;
    let is_sound =
        is_amount(d.strike_e8.u128()) && is_amount(d.multiplier_e8.u128()) && d.right <= 1 && d.twap_seconds != 0;
    require(is_sound, "definition")?;
    let words = Writer::default()
        .word(&d.underlying.0)
        .number(d.expiry)
        .amount(d.strike_e8.u128())
        .number(u64::from(d.right))
        .word(&d.quote_class.0)
        .amount(d.multiplier_e8.u128())
        .word(&d.price_source.0)
        .number(u64::from(d.twap_seconds))
        .done();
    let id = keccak(&[&words]);
    require(load_series(s, &id).is_none(), "exists")?;
    save_series(s, &id, Series::Listed { expiry: d.expiry });
    save_series(s, &compute_due(&d.quote_class.0), Series::Due);
    let mut body = Writer::of_kind(SERIES_LISTED).word(&id).done();
    body.extend_from_slice(&words);
    let (_, event) = emit(s, now, &body)?;
    Ok(Response::new().add_event(event).set_data(json(&Hex(id))?))
}

/// Let a bank coin be an asset: anyone, once, no packet. The value is the asset's id.
pub fn register_denom(s: &mut dyn Storage, denom: &str) -> Result<Response> {
    require(!denom.is_empty() && denom.len() <= MAX_DENOM_BYTES, "denom")?;
    let asset = compute_denom_asset(denom);
    require(is_native(&asset), "denom")?;
    require(load_denom(s, &asset).is_none(), "exists")?;
    save_denom(s, &asset, denom);
    Ok(Response::new().set_data(json(&Hex(asset))?))
}

/// Terms of an offer as the caller names them.
pub struct OfferTerms {
    pub side: u8,
    pub series: Word,
    pub asset: Word,
    pub quantity: u128,
    pub premium_per_contract: u128,
    pub valid_until: u64,
}

/// Rest an offer; reserves nothing. The value is its number.
pub fn offer(s: &mut dyn Storage, now: u64, maker: &Word, terms: &OfferTerms) -> Result<Response> {
    require_open(s, now)?;
    require(terms.side <= 1, "side")?;
    let Some(Series::Listed { expiry }) = load_series(s, &terms.series) else {
        return Err(fail("series"));
    };
    require(has_caps(s, &terms.asset, now), "asset")?;
    require(is_amount(terms.quantity) && is_amount(terms.premium_per_contract), "amount")?;
    require(now < terms.valid_until.min(expiry), "expired")?;
    let mut cursors = load_cursors(s);
    cursors.offer_count = cursors.offer_count.checked_add(1).ok_or_else(|| fail("overflow"))?;
    let new = Offer {
        maker: *maker,
        side: terms.side,
        series: terms.series,
        asset: terms.asset,
        quantity: terms.quantity,
        left: terms.quantity,
        premium_per_contract: terms.premium_per_contract,
        valid_until: terms.valid_until,
        expiry,
        cancelled: false,
    };
    save_cursors(s, &cursors);
    save_offer(s, cursors.offer_count, &new);
    Ok(Response::new().set_data(json(&cursors.offer_count)?))
}

/// The maker stops later takes; a taken trade lives on.
pub fn cancel(s: &mut dyn Storage, account: &Word, number: u64) -> Result<Response> {
    let mut offer = load_offer(s, number).ok_or_else(|| fail("unknown"))?;
    require(offer.maker == *account, "owner")?;
    require(!offer.cancelled && offer.left != 0, "closed")?;
    offer.cancelled = true;
    save_offer(s, number, &offer);
    Ok(Response::new())
}

/// Take (part of) an offer; reserves nothing, the clearing decides. The value is the trade's id.
pub fn take(
    s: &mut dyn Storage,
    now: u64,
    account: &Word,
    number: u64,
    quantity: u128,
    nonce: u64,
    for_house: bool,
) -> Result<Response> {
    require_open(s, now)?;
    let o = load_offer(s, number).ok_or_else(|| fail("unknown"))?;
    let taker = if for_house { HOUSE } else { *account };
    require(!o.cancelled && o.left != 0, "closed")?;
    require(now < o.valid_until.min(o.expiry), "expired")?;
    require(taker != o.maker, "self")?;
    require(quantity != 0 && quantity <= o.left, "amount")?;
    let is_open = load_trade(s, &taker, number, nonce).is_some_and(|t| t.number > load_cursors(s).decided_upto);
    require(!is_open, "open")?;
    let cost = compute_cost(quantity, o.premium_per_contract).filter(|c| *c <= M96).ok_or_else(|| fail("overflow"))?;
    let (buyer, seller) = if o.side == 0 { (o.maker, taker) } else { (taker, o.maker) };
    require(load_balance(s, &buyer, &o.asset).free >= cost, "cash")?;
    let body = Writer::of_kind(TRADE_PENDING)
        .word(&buyer)
        .word(&seller)
        .word(&o.series)
        .word(&o.asset)
        .amount(quantity)
        .amount(cost)
        .number(o.valid_until)
        .word(&taker)
        .number(number)
        .number(nonce);
    let (id, event) = emit(s, now, &body.done())?;
    let trade = Trade { id, quantity, cost, number: load_cursors(s).outbox_sequence };
    save_trade(s, &taker, number, nonce, &trade);
    Ok(Response::new().add_event(event).set_data(json(&Hex(id))?))
}

/// ceil(quantity * premium / 1e8) of two numbers below 2^96, or None from 2^128 on.
pub fn compute_cost(quantity: u128, premium: u128) -> Option<u128> {
    // quantity = high * 1e8 + low: the whole contracts cost high * premium, the rest is rounded up
    let (high, low) = (quantity / CONTRACT, quantity % CONTRACT);
    let rest = (low * premium).div_ceil(CONTRACT); // below 2^27 * 2^96
    high.checked_mul(premium)?.checked_add(rest)
}

/// Ask for free cash; reserves nothing, replaces an older request, lapses after a day. The value is the request's id.
pub fn request_withdrawal(
    s: &mut dyn Storage,
    now: u64,
    caller: &Word,
    asset: &Word,
    amount: u128,
    for_house: bool,
) -> Result<Response> {
    let mut account = *caller;
    if for_house {
        let treasurer = load_operators(s, load_control(s, now).set).treasurer;
        require(account == treasurer, "owner")?;
        account = HOUSE;
    }
    require(is_amount(amount), "amount")?;
    require(has_caps(s, asset, now), "asset")?;
    let body = Writer::of_kind(WITHDRAWAL_REQUESTED).word(&account).word(asset).amount(amount);
    let (id, event) = emit(s, now, &body.done())?;
    save_request(s, &account, asset, &Request { id, amount, made_at: now });
    Ok(Response::new().add_event(event).set_data(json(&Hex(id))?))
}

/// Pay what `account` may claim to `account`; anyone may call.
pub fn claim(deps: DepsMut<'_>, now: u64, account: &Word, asset: &Word) -> Result<Response> {
    require(is_native(account), "account")?;
    let mut balance = load_balance(deps.storage, account, asset);
    let amount = balance.claimable;
    require(amount != 0, "amount")?;
    balance.claimable = 0;
    save_balance(deps.storage, account, asset, &balance);
    let body = Writer::of_kind(CLAIMED).word(account).word(asset).amount(amount);
    let (_, event) = emit(deps.storage, now, &body.done())?;
    let owner = address_of(deps.api, account)?;
    let payment: CosmosMsg = match load_denom(deps.storage, asset) {
        Some(denom) => BankMsg::Send { to_address: owner.into_string(), amount: vec![Coin::new(amount, denom)] }.into(),
        None => {
            let token = address_of(deps.api, asset)?.into_string();
            let pay = TokenMsg::Transfer { recipient: owner.into_string(), amount: Uint128::new(amount) };
            WasmMsg::Execute { contract_addr: token, msg: json(&pay)?, funds: vec![] }.into()
        }
    };
    save_lock(deps.storage, &Lock::Claim);
    Ok(Response::new().add_event(event).add_submessage(SubMsg::reply_on_success(payment, REPLY_CLAIM)))
}

/// One operator, once an epoch, stops deposits, offers, takes and settlement; anyone may bring its signature.
pub fn pause(s: &mut dyn Storage, api: &dyn Api, now: u64, signature: &[u8]) -> Result<Response> {
    let mut control = load_control(s, now);
    require(!control.paused, "paused")?;
    require(signature.len() == 65, "signature")?;
    let digest = compute_pause_digest(&load_config(s).vault_id, control.epoch);
    let signer = recover(api, &digest, signature).map_err(|_| fail("signature"))?;
    let operators = load_operators(s, control.set).operators;
    let index = operators.iter().position(|operator| *operator == signer).ok_or_else(|| fail("signature"))?;
    let bit = 1u32 << index;
    require(control.pause_used & bit == 0, "used")?;
    control.paused = true;
    control.pause_used |= bit;
    save_control(s, &control);
    let (_, event) = emit(s, now, &Writer::of_kind(PAUSED).address(&signer).done())?;
    Ok(Response::new().add_event(event))
}

/// After 30 days without an inbox packet an account without a negative position may leave with its free cash.
pub fn escape(s: &mut dyn Storage, now: u64, account: &Word, asset: &Word) -> Result<Response> {
    let earliest = load_cursors(s).accepted_at.checked_add(ESCAPE_AFTER).ok_or_else(|| fail("early"))?;
    require(now >= earliest, "early")?;
    require(load_negatives(s, account) == 0, "positions")?;
    let mut balance = load_balance(s, account, asset);
    let amount = balance.free;
    require(amount != 0, "amount")?;
    balance.free = 0;
    balance.claimable += amount;
    require(balance.claimable <= M96, "overflow")?;
    save_balance(s, account, asset, &balance);
    let body = Writer::of_kind(ESCAPED).word(account).word(asset).amount(amount);
    let (_, event) = emit(s, now, &body.done())?;
    Ok(Response::new().add_event(event))
}
