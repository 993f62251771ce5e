//! A cw20 that misbehaves, for tests of the vault: everybody may spend everything, and `set` says how it answers.

#![forbid(unsafe_code)]

use cosmwasm_std::{
    entry_point, from_json, to_json_binary, to_json_vec, Binary, Deps, DepsMut, Env, MessageInfo, Response, StdError,
    StdResult, Storage, SubMsg, Uint128, WasmMsg,
};
use serde::{Deserialize, Serialize};

const BEHAVIOUR: &[u8] = b"behaviour";

/// What `transfer` and `transfer_from` do. All fields may be combined.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The receiver gets this much less (never below nothing).
    pub fee: Uint128,
    /// The receiver gets this much more.
    pub bonus: Uint128,
    /// The whole balance of the receiver is gone afterwards.
    pub burns: bool,
    /// Fail.
    pub fails: bool,
    /// Fail every query of a balance.
    pub mute: bool,
    /// Call this afterwards, inside the same transaction, in the token's own name.
    pub calls: Option<Call>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    pub contract: String,
    pub msg: Binary,
    /// Go on when the call fails.
    #[serde(default)]
    pub catches: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstantiateMsg {
    #[serde(default)]
    pub behaviour: Behaviour,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ExecuteMsg {
    Transfer { recipient: String, amount: Uint128 },
    TransferFrom { owner: String, recipient: String, amount: Uint128 },
    Mint { recipient: String, amount: Uint128 },
    Set { behaviour: Behaviour },
    Run { contract: String, msg: Binary },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum QueryMsg {
    Balance { address: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct BalanceResponse {
    pub balance: Uint128,
}

fn key(address: &str) -> Vec<u8> {
    [b"b/", address.as_bytes()].concat()
}

fn load(s: &dyn Storage, address: &str) -> Uint128 {
    let bytes: [u8; 16] = s.get(&key(address)).and_then(|data| data.try_into().ok()).unwrap_or_default();
    Uint128::from(u128::from_be_bytes(bytes))
}

fn save(s: &mut dyn Storage, address: &str, amount: Uint128) {
    s.set(&key(address), &amount.to_be_bytes());
}

fn load_behaviour(s: &dyn Storage) -> StdResult<Behaviour> {
    from_json(s.get(BEHAVIOUR).ok_or_else(|| StdError::msg("no token"))?)
}

fn transfer(s: &mut dyn Storage, from: &str, to: &str, amount: Uint128) -> StdResult<Response> {
    let b = load_behaviour(s)?;
    if b.fails {
        return Err(StdError::msg("this token does not move"));
    }
    let rest = load(s, from).checked_sub(amount)?;
    save(s, from, rest);
    let arrives = amount.saturating_sub(b.fee).checked_add(b.bonus)?;
    let sum = if b.burns { Uint128::zero() } else { load(s, to).checked_add(arrives)? };
    save(s, to, sum);
    let mut response = Response::new();
    if let Some(call) = b.calls {
        let run = WasmMsg::Execute { contract_addr: call.contract, msg: call.msg, funds: vec![] };
        let sub = if call.catches { SubMsg::reply_on_error(run, 1) } else { SubMsg::new(run) };
        response = response.add_submessage(sub);
    }
    Ok(response)
}

#[entry_point]
pub fn instantiate(deps: DepsMut, _env: Env, _info: MessageInfo, msg: InstantiateMsg) -> StdResult<Response> {
    deps.storage.set(BEHAVIOUR, &to_json_vec(&msg.behaviour)?);
    Ok(Response::new())
}

#[entry_point]
pub fn execute(deps: DepsMut, _env: Env, info: MessageInfo, msg: ExecuteMsg) -> StdResult<Response> {
    match msg {
        ExecuteMsg::Transfer { recipient, amount } => transfer(deps.storage, info.sender.as_str(), &recipient, amount),
        ExecuteMsg::TransferFrom { owner, recipient, amount } => transfer(deps.storage, &owner, &recipient, amount),
        ExecuteMsg::Mint { recipient, amount } => {
            let sum = load(deps.storage, &recipient).checked_add(amount)?;
            save(deps.storage, &recipient, sum);
            Ok(Response::new())
        }
        ExecuteMsg::Set { behaviour } => {
            deps.storage.set(BEHAVIOUR, &to_json_vec(&behaviour)?);
            Ok(Response::new())
        }
        ExecuteMsg::Run { contract, msg } => {
            Ok(Response::new().add_message(WasmMsg::Execute { contract_addr: contract, msg, funds: vec![] }))
        }
    }
}

/// Of a caught call: go on, and say what it was refused for.
#[entry_point]
pub fn reply(_deps: DepsMut, _env: Env, msg: cosmwasm_std::Reply) -> StdResult<Response> {
    let why = msg.result.into_result().err().unwrap_or_default();
    Ok(Response::new().add_attribute("caught", why))
}

#[entry_point]
pub fn query(deps: Deps, _env: Env, msg: QueryMsg) -> StdResult<Binary> {
    let QueryMsg::Balance { address } = msg;
    if load_behaviour(deps.storage)?.mute {
        return Err(StdError::msg("this token says nothing"));
    }
    to_json_binary(&BalanceResponse { balance: load(deps.storage, &address) })
}
