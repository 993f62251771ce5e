//! Vault of optsettle-1 on CosmWasm: escrow and certified ledger of cash and option positions on one chain.
//!
//! It has no owner, no migration and no sudo: it does what a certified packet says, inside its own invariants. The rules
//! and the order of checks are protocol.md 2 to 4 and vault.md, the same to the byte as in the vault of the Ethereum
//! family. Arithmetic is checked (`overflow-checks`), so what the bounds in the code do not exclude traps.

#![forbid(unsafe_code)]

pub mod abi;
pub mod calls;
pub mod error;
pub mod msg;
pub mod packet;
pub mod query;
pub mod recv;
pub mod state;
pub mod values;

#[cfg(test)]
mod tests;

use cosmwasm_std::{entry_point, Binary, Deps, DepsMut, Env, MessageInfo, Reply, Response};

use crate::calls::{account_of, OfferTerms};
use crate::error::{require, Result};
use crate::msg::{ExecuteMsg, InstantiateMsg, QueryMsg};
use crate::packet::compute_vault_id;
use crate::state::{
    has_caps, is_locked, save_caps, save_config, save_control, save_cursors, save_head, save_operators, Caps, Config,
    Control, Cursors, OperatorSet, Triple,
};
use crate::values::{is_amount, is_native, is_set, Address, MAX_CAPS, MAX_DELAY};

/// Create a vault. Nothing of this can be changed later but by certified packets.
#[entry_point]
pub fn instantiate(deps: DepsMut, env: Env, info: MessageInfo, msg: InstantiateMsg) -> Result<Response> {
    let now = env.block.time.seconds();
    let operators: Vec<Address> = msg.operators.iter().map(|operator| operator.0).collect();
    require(info.funds.is_empty(), "funds")?;
    require(is_set(&operators, msg.threshold) && is_native(&msg.treasurer.0), "operators")?;
    require(msg.delay <= MAX_DELAY, "delay")?;
    require(msg.caps.len() <= MAX_CAPS, "caps")?;
    let s = deps.storage;
    for c in &msg.caps {
        require(is_native(&c.asset.0) && !has_caps(s, &c.asset.0, now), "asset")?;
        let [per_packet, per_hour, per_day] = [c.per_packet.u128(), c.per_hour.u128(), c.per_day.u128()];
        require(is_amount(per_packet) && is_amount(per_hour) && is_amount(per_day), "caps")?;
        save_caps(s, &c.asset.0, &Caps { now: Triple { per_packet, per_hour, per_day }, ..Caps::default() });
    }
    save_operators(s, 0, &OperatorSet { treasurer: msg.treasurer.0, operators });
    let control = Control {
        threshold: msg.threshold,
        set: 0,
        paused: false,
        epoch: 0,
        pending_at: 0,
        pending_threshold: 0,
        unpause_at: 0,
        pause_used: 0,
    };
    save_control(s, &control);
    let vault_id = compute_vault_id(&env.block.chain_id, &account_of(deps.api, &env.contract.address)?);
    save_config(s, &Config { vault_id, delay: msg.delay });
    save_head(s, &vault_id);
    save_cursors(s, &Cursors { accepted_at: now, ..Cursors::default() });
    Ok(Response::new())
}

/// Run one call. While a token or the bank is being called nothing else may enter.
#[entry_point]
pub fn execute(deps: DepsMut, env: Env, info: MessageInfo, msg: ExecuteMsg) -> Result<Response> {
    let now = env.block.time.seconds();
    require(!is_locked(deps.storage), "locked")?;
    // only the deposit of a bank coin brings funds; deposit judges its own
    require(info.funds.is_empty() || matches!(msg, ExecuteMsg::Deposit { .. }), "funds")?;
    match msg {
        ExecuteMsg::Deposit { asset, amount, beneficiary } => {
            calls::deposit(deps, &env, &info, &asset.0, amount.u128(), &beneficiary.0)
        }
        ExecuteMsg::Link { portfolio, valid_until, signature } => {
            let account = account_of(deps.api, &info.sender)?;
            calls::link(deps.storage, now, &account, &portfolio.0, valid_until, &signature)
        }
        ExecuteMsg::ListSeries { definition } => calls::list_series(deps.storage, now, &definition),
        ExecuteMsg::RegisterDenom { denom } => calls::register_denom(deps.storage, &denom),
        ExecuteMsg::Offer { side, series, asset, quantity, premium_per_contract, valid_until } => {
            let account = account_of(deps.api, &info.sender)?;
            let terms = OfferTerms {
                side,
                series: series.0,
                asset: asset.0,
                quantity: quantity.u128(),
                premium_per_contract: premium_per_contract.u128(),
                valid_until,
            };
            calls::offer(deps.storage, now, &account, &terms)
        }
        ExecuteMsg::Cancel { offer } => {
            let account = account_of(deps.api, &info.sender)?;
            calls::cancel(deps.storage, &account, offer)
        }
        ExecuteMsg::Take { offer, quantity, nonce, for_house } => {
            let account = account_of(deps.api, &info.sender)?;
            calls::take(deps.storage, now, &account, offer, quantity.u128(), nonce, for_house)
        }
        ExecuteMsg::RequestWithdrawal { asset, amount, for_house } => {
            let account = account_of(deps.api, &info.sender)?;
            calls::request_withdrawal(deps.storage, now, &account, &asset.0, amount.u128(), for_house)
        }
        ExecuteMsg::Claim { account, asset } => calls::claim(deps, now, &account.0, &asset.0),
        ExecuteMsg::Escape { asset } => {
            let account = account_of(deps.api, &info.sender)?;
            calls::escape(deps.storage, now, &account, &asset.0)
        }
        ExecuteMsg::Pause { signature } => calls::pause(deps.storage, deps.api, now, &signature),
        ExecuteMsg::Recv { packet, signatures } => {
            let events = recv::recv(deps.storage, deps.api, now, &packet, &signatures)?;
            Ok(Response::new().add_events(events))
        }
    }
}

/// The answer of a token or of the bank to deposit or claim.
#[entry_point]
pub fn reply(deps: DepsMut, env: Env, msg: Reply) -> Result<Response> {
    calls::reply(deps, &env, msg.id)
}

/// Views; see `QueryMsg`.
#[entry_point]
pub fn query(deps: Deps, env: Env, msg: QueryMsg) -> Result<Binary> {
    query::query(deps.storage, deps.api, &env, &msg)
}
