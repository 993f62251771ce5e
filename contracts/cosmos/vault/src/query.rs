//! Views. Changes under delay that are in force now are shown as in force.

use cosmwasm_std::{to_json_binary, Api, Binary, Env, Storage};

use crate::calls::account_of;
use crate::error::{fail_with, Result};
use crate::msg::{
    AssetAnswer, BalanceAnswer, CapsAnswer, ControlAnswer, CursorsAnswer, Hex, Hex20, NegativesAnswer, OfferAnswer,
    PendingCaps, PendingOperators, PositionAnswer, QueryMsg, RequestAnswer, SeriesAnswer, TradeAnswer, VaultAnswer,
    WindowAnswer, WindowsAnswer,
};
use crate::packet::compute_client;
use crate::state::{
    load_balance, load_caps, load_config, load_control, load_cursors, load_denom, load_head, load_negatives,
    load_offer, load_operators, load_position, load_request, load_series, load_trade, load_window, Series, SETTLEMENT,
    WITHDRAWAL,
};
use crate::values::{
    Address, Word, CLEARING, ENCODING, HOUSE, INSURANCE, MAX_ITEMS, MAX_LEGS, MAX_OPERATORS, PORT, VERSION,
};

/// Answer a query with JSON; records that do not exist are null.
pub fn query(s: &dyn Storage, api: &dyn Api, env: &Env, msg: &QueryMsg) -> Result<Binary> {
    let now = env.block.time.seconds();
    let answer = match msg {
        QueryMsg::Vault {} => to_json_binary(&query_vault(s, api, env)?),
        QueryMsg::Cursors {} => to_json_binary(&query_cursors(s)),
        QueryMsg::Control {} => to_json_binary(&query_control(s, now)),
        QueryMsg::Caps { asset } => to_json_binary(&query_caps(s, &asset.0, now)),
        QueryMsg::Balance { account, asset } => {
            let b = load_balance(s, &account.0, &asset.0);
            to_json_binary(&BalanceAnswer { free: b.free.into(), claimable: b.claimable.into() })
        }
        QueryMsg::Position { account, series } => {
            let quantity = load_position(s, &account.0, &series.0).to_string();
            to_json_binary(&PositionAnswer { quantity })
        }
        QueryMsg::Negatives { account } => to_json_binary(&NegativesAnswer { count: load_negatives(s, &account.0) }),
        QueryMsg::Series { id } => to_json_binary(&load_series(s, &id.0).map(|series| match series {
            Series::Listed { expiry } => SeriesAnswer { expiry, is_due: false },
            Series::Due => SeriesAnswer { expiry: 0, is_due: true },
        })),
        QueryMsg::Offer { number } => to_json_binary(&query_offer(s, *number)),
        QueryMsg::Trade { taker, offer, nonce } => to_json_binary(&query_trade(s, &taker.0, *offer, *nonce)),
        QueryMsg::Request { account, asset } => {
            to_json_binary(&load_request(s, &account.0, &asset.0).map(|r| RequestAnswer {
                id: Hex(r.id),
                amount: r.amount.into(),
                made_at: r.made_at,
            }))
        }
        QueryMsg::Asset { id } => to_json_binary(&AssetAnswer { denom: load_denom(s, &id.0) }),
        QueryMsg::Windows { asset } => to_json_binary(&WindowsAnswer {
            settlement: query_window(s, SETTLEMENT, &asset.0),
            withdrawal: query_window(s, WITHDRAWAL, &asset.0),
        }),
    };
    answer.map_err(|e| fail_with("json", e))
}

fn query_vault(s: &dyn Storage, api: &dyn Api, env: &Env) -> Result<VaultAnswer> {
    let config = load_config(s);
    Ok(VaultAnswer {
        vault_id: Hex(config.vault_id),
        vault_client: compute_client(&config.vault_id),
        account: Hex(account_of(api, &env.contract.address)?),
        delay: config.delay,
        house: Hex(HOUSE),
        insurance: Hex(INSURANCE),
        clearing_client: CLEARING.into(),
        port: PORT.into(),
        version: VERSION.into(),
        encoding: ENCODING.into(),
        max_operators: MAX_OPERATORS as u64,
        max_legs: MAX_LEGS as u64,
        max_items: MAX_ITEMS as u64,
    })
}

fn query_cursors(s: &dyn Storage) -> CursorsAnswer {
    let c = load_cursors(s);
    CursorsAnswer {
        inbox_sequence: c.inbox_sequence,
        outbox_sequence: c.outbox_sequence,
        outbox_head: Hex(load_head(s)),
        accepted_at: c.accepted_at,
        decided_upto: c.decided_upto,
        offer_count: c.offer_count,
    }
}

fn addresses(operators: &[Address]) -> Vec<Hex20> {
    operators.iter().map(|operator| Hex(*operator)).collect()
}

fn query_control(s: &dyn Storage, now: u64) -> ControlAnswer {
    let c = load_control(s, now);
    let set = load_operators(s, c.set);
    let used = set.operators.iter().enumerate().filter(|(i, _)| c.pause_used >> i & 1 == 1);
    let pending_operators = (c.pending_at != 0).then(|| {
        let next = load_operators(s, 1 - c.set);
        PendingOperators {
            at: c.pending_at,
            threshold: c.pending_threshold,
            treasurer: Hex(next.treasurer),
            operators: addresses(&next.operators),
        }
    });
    ControlAnswer {
        threshold: c.threshold,
        operator_epoch: c.epoch,
        treasurer: Hex(set.treasurer),
        paused: c.paused,
        pause_used: used.map(|(_, operator)| Hex(*operator)).collect(),
        pending_operators,
        pending_unpause: (c.unpause_at != 0).then_some(c.unpause_at),
        operators: addresses(&set.operators),
    }
}

fn query_caps(s: &dyn Storage, asset: &Word, now: u64) -> CapsAnswer {
    let c = load_caps(s, asset, now);
    CapsAnswer {
        per_packet: c.now.per_packet.into(),
        per_hour: c.now.per_hour.into(),
        per_day: c.now.per_day.into(),
        pending: (c.pending_at != 0).then(|| PendingCaps {
            at: c.pending_at,
            per_packet: c.next.per_packet.into(),
            per_hour: c.next.per_hour.into(),
            per_day: c.next.per_day.into(),
        }),
    }
}

fn query_offer(s: &dyn Storage, number: u64) -> Option<OfferAnswer> {
    load_offer(s, number).map(|o| OfferAnswer {
        maker: Hex(o.maker),
        side: o.side,
        series: Hex(o.series),
        asset: Hex(o.asset),
        quantity: o.quantity.into(),
        left: o.left.into(),
        premium_per_contract: o.premium_per_contract.into(),
        valid_until: o.valid_until,
        expiry: o.expiry,
        cancelled: o.cancelled,
    })
}

/// The open trade under a key, None when it is over.
fn query_trade(s: &dyn Storage, taker: &Word, offer: u64, nonce: u64) -> Option<TradeAnswer> {
    let open = load_trade(s, taker, offer, nonce).filter(|t| t.number > load_cursors(s).decided_upto);
    open.map(|t| TradeAnswer { id: Hex(t.id), quantity: t.quantity.into(), cost: t.cost.into(), number: t.number })
}

fn query_window(s: &dyn Storage, which: u8, asset: &Word) -> WindowAnswer {
    let w = load_window(s, which, asset);
    WindowAnswer { hour: w.hour, hour_used: w.hour_used.into(), day: w.day, day_used: w.day_used.into() }
}
