//! A small token after the cw20 standard, for tests and local networks: the messages that wallets and the vault use.

#![forbid(unsafe_code)]

use cosmwasm_std::{
    entry_point, from_json, to_json_binary, to_json_vec, Addr, Binary, Deps, DepsMut, Env, MessageInfo, Response,
    StdError, StdResult, Storage, Uint128, WasmMsg,
};
use serde::{Deserialize, Serialize};

const INFO: &[u8] = b"info";

#[derive(Debug, Serialize, Deserialize)]
pub struct InitialBalance {
    pub address: String,
    pub amount: Uint128,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Minter {
    pub minter: String,
    #[serde(default)]
    pub cap: Option<Uint128>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstantiateMsg {
    pub name: String,
    pub symbol: String,
    pub decimals: u8,
    #[serde(default)]
    pub initial_balances: Vec<InitialBalance>,
    #[serde(default)]
    pub mint: Option<Minter>,
}

/// When an allowance ends; this token has allowances that never do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiration {
    Never {},
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ExecuteMsg {
    Transfer {
        recipient: String,
        amount: Uint128,
    },
    TransferFrom {
        owner: String,
        recipient: String,
        amount: Uint128,
    },
    IncreaseAllowance {
        spender: String,
        amount: Uint128,
        #[serde(default)]
        expires: Option<Expiration>,
    },
    DecreaseAllowance {
        spender: String,
        amount: Uint128,
        #[serde(default)]
        expires: Option<Expiration>,
    },
    Mint {
        recipient: String,
        amount: Uint128,
    },
    Burn {
        amount: Uint128,
    },
    Send {
        contract: String,
        amount: Uint128,
        msg: Binary,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum QueryMsg {
    Balance { address: String },
    TokenInfo {},
    Minter {},
    Allowance { owner: String, spender: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct BalanceResponse {
    pub balance: Uint128,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct TokenInfoResponse {
    pub name: String,
    pub symbol: String,
    pub decimals: u8,
    pub total_supply: Uint128,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct AllowanceResponse {
    pub allowance: Uint128,
    pub expires: Expiration,
}

/// What a contract gets that tokens were sent to.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReceiveMsg {
    pub sender: String,
    pub amount: Uint128,
    pub msg: Binary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Hook {
    Receive(ReceiveMsg),
}

#[derive(Debug, Serialize, Deserialize)]
struct Info {
    name: String,
    symbol: String,
    decimals: u8,
    supply: Uint128,
    minter: Option<Minter>,
}

fn load_info(s: &dyn Storage) -> StdResult<Info> {
    from_json(s.get(INFO).ok_or_else(|| StdError::msg("no token"))?)
}

fn save_info(s: &mut dyn Storage, info: &Info) -> StdResult<()> {
    s.set(INFO, &to_json_vec(info)?);
    Ok(())
}

fn balance_key(address: &str) -> Vec<u8> {
    [b"b/", address.as_bytes()].concat()
}

fn allowance_key(owner: &str, spender: &str) -> Vec<u8> {
    // no address holds a slash
    [b"a/", owner.as_bytes(), b"/", spender.as_bytes()].concat()
}

fn load(s: &dyn Storage, key: &[u8]) -> Uint128 {
    let bytes: [u8; 16] = s.get(key).and_then(|data| data.try_into().ok()).unwrap_or_default();
    Uint128::from(u128::from_be_bytes(bytes))
}

fn save(s: &mut dyn Storage, key: &[u8], amount: Uint128) {
    if amount.is_zero() {
        s.remove(key);
    } else {
        s.set(key, &amount.to_be_bytes());
    }
}

fn add(s: &mut dyn Storage, key: &[u8], amount: Uint128) -> StdResult<()> {
    let sum = load(s, key).checked_add(amount)?;
    save(s, key, sum);
    Ok(())
}

fn subtract(s: &mut dyn Storage, key: &[u8], amount: Uint128) -> StdResult<()> {
    let rest = load(s, key).checked_sub(amount)?;
    save(s, key, rest);
    Ok(())
}

fn transfer(deps: &mut DepsMut<'_>, from: &str, to: &str, amount: Uint128) -> StdResult<()> {
    if amount.is_zero() {
        return Err(StdError::msg("zero amount"));
    }
    let to = deps.api.addr_validate(to)?;
    subtract(deps.storage, &balance_key(from), amount)?;
    add(deps.storage, &balance_key(to.as_str()), amount)
}

fn mint(deps: &mut DepsMut<'_>, to: &str, amount: Uint128) -> StdResult<()> {
    let to = deps.api.addr_validate(to)?;
    let mut info = load_info(deps.storage)?;
    info.supply = info.supply.checked_add(amount)?;
    if let Some(cap) = info.minter.as_ref().and_then(|m| m.cap) {
        if info.supply > cap {
            return Err(StdError::msg("above the cap"));
        }
    }
    save_info(deps.storage, &info)?;
    add(deps.storage, &balance_key(to.as_str()), amount)
}

fn answer(action: &str, from: &str, to: &str, amount: Uint128) -> Response {
    Response::new()
        .add_attribute("action", action)
        .add_attribute("from", from)
        .add_attribute("to", to)
        .add_attribute("amount", amount)
}

#[entry_point]
pub fn instantiate(mut deps: DepsMut, _env: Env, _info: MessageInfo, msg: InstantiateMsg) -> StdResult<Response> {
    if let Some(minter) = &msg.mint {
        deps.api.addr_validate(&minter.minter)?;
    }
    let info =
        Info { name: msg.name, symbol: msg.symbol, decimals: msg.decimals, supply: Uint128::zero(), minter: msg.mint };
    save_info(deps.storage, &info)?;
    for holder in &msg.initial_balances {
        mint(&mut deps, &holder.address, holder.amount)?;
    }
    Ok(Response::new())
}

#[entry_point]
pub fn execute(mut deps: DepsMut, _env: Env, info: MessageInfo, msg: ExecuteMsg) -> StdResult<Response> {
    let sender: &Addr = &info.sender;
    match msg {
        ExecuteMsg::Transfer { recipient, amount } => {
            transfer(&mut deps, sender.as_str(), &recipient, amount)?;
            Ok(answer("transfer", sender.as_str(), &recipient, amount))
        }
        ExecuteMsg::TransferFrom { owner, recipient, amount } => {
            let owner = deps.api.addr_validate(&owner)?;
            subtract(deps.storage, &allowance_key(owner.as_str(), sender.as_str()), amount)?;
            transfer(&mut deps, owner.as_str(), &recipient, amount)?;
            Ok(answer("transfer_from", owner.as_str(), &recipient, amount).add_attribute("by", sender))
        }
        ExecuteMsg::IncreaseAllowance { spender, amount, .. } => {
            let spender = deps.api.addr_validate(&spender)?;
            add(deps.storage, &allowance_key(sender.as_str(), spender.as_str()), amount)?;
            Ok(Response::new().add_attribute("action", "increase_allowance"))
        }
        ExecuteMsg::DecreaseAllowance { spender, amount, .. } => {
            let spender = deps.api.addr_validate(&spender)?;
            let key = allowance_key(sender.as_str(), spender.as_str());
            let rest = load(deps.storage, &key).saturating_sub(amount);
            save(deps.storage, &key, rest);
            Ok(Response::new().add_attribute("action", "decrease_allowance"))
        }
        ExecuteMsg::Mint { recipient, amount } => {
            let minter = load_info(deps.storage)?.minter.map(|m| m.minter);
            if minter.as_deref() != Some(sender.as_str()) {
                return Err(StdError::msg("not the minter"));
            }
            mint(&mut deps, &recipient, amount)?;
            Ok(answer("mint", "", &recipient, amount))
        }
        ExecuteMsg::Burn { amount } => {
            subtract(deps.storage, &balance_key(sender.as_str()), amount)?;
            let mut info = load_info(deps.storage)?;
            info.supply = info.supply.checked_sub(amount)?;
            save_info(deps.storage, &info)?;
            Ok(answer("burn", sender.as_str(), "", amount))
        }
        ExecuteMsg::Send { contract, amount, msg } => {
            transfer(&mut deps, sender.as_str(), &contract, amount)?;
            let hook = Hook::Receive(ReceiveMsg { sender: sender.to_string(), amount, msg });
            let call = WasmMsg::Execute { contract_addr: contract.clone(), msg: to_json_binary(&hook)?, funds: vec![] };
            Ok(answer("send", sender.as_str(), &contract, amount).add_message(call))
        }
    }
}

#[entry_point]
pub fn query(deps: Deps, _env: Env, msg: QueryMsg) -> StdResult<Binary> {
    match msg {
        QueryMsg::Balance { address } => {
            let address = deps.api.addr_validate(&address)?;
            let balance = load(deps.storage, &balance_key(address.as_str()));
            to_json_binary(&BalanceResponse { balance })
        }
        QueryMsg::TokenInfo {} => {
            let info = load_info(deps.storage)?;
            to_json_binary(&TokenInfoResponse {
                name: info.name,
                symbol: info.symbol,
                decimals: info.decimals,
                total_supply: info.supply,
            })
        }
        QueryMsg::Minter {} => to_json_binary(&load_info(deps.storage)?.minter),
        QueryMsg::Allowance { owner, spender } => {
            let allowance = load(deps.storage, &allowance_key(&owner, &spender));
            to_json_binary(&AllowanceResponse { allowance, expires: Expiration::Never {} })
        }
    }
}

#[cfg(test)]
mod tests {
    use cosmwasm_std::testing::{message_info, mock_dependencies, mock_env};

    use super::*;

    #[test]
    fn an_allowance_is_used_up_by_transfers() {
        let mut deps = mock_dependencies();
        let (alice, bob) = (deps.api.addr_make("alice"), deps.api.addr_make("bob"));
        let msg = InstantiateMsg {
            name: "Coin".into(),
            symbol: "COIN".into(),
            decimals: 6,
            initial_balances: vec![InitialBalance { address: alice.to_string(), amount: 10u128.into() }],
            mint: None,
        };
        instantiate(deps.as_mut(), mock_env(), message_info(&alice, &[]), msg).unwrap();
        let allow = ExecuteMsg::IncreaseAllowance { spender: bob.to_string(), amount: 7u128.into(), expires: None };
        execute(deps.as_mut(), mock_env(), message_info(&alice, &[]), allow).unwrap();
        let pull = |amount: u128| ExecuteMsg::TransferFrom {
            owner: alice.to_string(),
            recipient: bob.to_string(),
            amount: amount.into(),
        };
        execute(deps.as_mut(), mock_env(), message_info(&bob, &[]), pull(5)).unwrap();
        assert!(execute(deps.as_mut(), mock_env(), message_info(&bob, &[]), pull(3)).is_err());
        assert_eq!(load(&deps.storage, &balance_key(bob.as_str())), Uint128::new(5));
        assert_eq!(load(&deps.storage, &balance_key(alice.as_str())), Uint128::new(5));
    }

    #[test]
    fn only_the_minter_mints() {
        let mut deps = mock_dependencies();
        let (alice, bob) = (deps.api.addr_make("alice"), deps.api.addr_make("bob"));
        let msg = InstantiateMsg {
            name: "Coin".into(),
            symbol: "COIN".into(),
            decimals: 6,
            initial_balances: vec![],
            mint: Some(Minter { minter: alice.to_string(), cap: None }),
        };
        instantiate(deps.as_mut(), mock_env(), message_info(&alice, &[]), msg).unwrap();
        let mint = || ExecuteMsg::Mint { recipient: bob.to_string(), amount: 1u128.into() };
        assert!(execute(deps.as_mut(), mock_env(), message_info(&bob, &[]), mint()).is_err());
        execute(deps.as_mut(), mock_env(), message_info(&alice, &[]), mint()).unwrap();
        assert_eq!(load(&deps.storage, &balance_key(bob.as_str())), Uint128::new(1));
    }
}
