//! JSON messages. Byte strings are lower-case hex without 0x, amounts decimal strings, times and counters numbers.

use std::fmt;

use cosmwasm_std::{Binary, HexBinary, Uint128};
use serde::{de, Deserialize, Deserializer, Serialize, Serializer};

/// N bytes as exactly 2N lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<const N: usize>(pub [u8; N]);

pub type Hex32 = Hex<32>;
pub type Hex20 = Hex<20>;

/// Lower-case hex without 0x.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn digit_of(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_hex(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const N: usize>;
        impl<const N: usize> de::Visitor<'_> for Visitor<N> {
            type Value = Hex<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} lower-case hex digits", 2 * N)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hex<N>, E> {
                let digits = text.as_bytes();
                if digits.len() != 2 * N {
                    return Err(E::invalid_length(digits.len(), &self));
                }
                let mut bytes = [0; N];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    match (digit_of(pair[0]), digit_of(pair[1])) {
                        (Some(high), Some(low)) => *byte = high << 4 | low,
                        _ => return Err(E::custom("not lower-case hex")),
                    }
                }
                Ok(Hex(bytes))
            }
        }
        deserializer.deserialize_str(Visitor::<N>)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetCaps {
    pub asset: Hex32,
    pub per_packet: Uint128,
    pub per_hour: Uint128,
    pub per_day: Uint128,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstantiateMsg {
    pub operators: Vec<Hex20>,
    pub threshold: u8,
    pub treasurer: Hex32,
    pub delay: u64,
    pub caps: Vec<AssetCaps>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub underlying: Hex32,
    pub expiry: u64,
    pub strike_e8: Uint128,
    pub right: u8,
    pub quote_class: Hex32,
    pub multiplier_e8: Uint128,
    pub price_source: Hex32,
    pub twap_seconds: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    pub source_port: String,
    pub destination_port: String,
    pub version: String,
    pub encoding: String,
    pub value: Binary,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    pub sequence: u64,
    pub source_client: String,
    pub destination_client: String,
    pub timeout: u64,
    pub payloads: Vec<Payload>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ExecuteMsg {
    Deposit {
        asset: Hex32,
        amount: Uint128,
        beneficiary: Hex32,
    },
    Link {
        portfolio: Hex32,
        valid_until: u64,
        signature: HexBinary,
    },
    ListSeries {
        definition: Definition,
    },
    RegisterDenom {
        denom: String,
    },
    Offer {
        side: u8,
        series: Hex32,
        asset: Hex32,
        quantity: Uint128,
        premium_per_contract: Uint128,
        valid_until: u64,
    },
    Cancel {
        offer: u64,
    },
    Take {
        offer: u64,
        quantity: Uint128,
        nonce: u64,
        #[serde(default)]
        for_house: bool,
    },
    RequestWithdrawal {
        asset: Hex32,
        amount: Uint128,
        #[serde(default)]
        for_house: bool,
    },
    Claim {
        account: Hex32,
        asset: Hex32,
    },
    Escape {
        asset: Hex32,
    },
    Pause {
        signature: HexBinary,
    },
    Recv {
        packet: Packet,
        signatures: Vec<HexBinary>,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum QueryMsg {
    Vault {},
    Cursors {},
    Control {},
    Caps { asset: Hex32 },
    Balance { account: Hex32, asset: Hex32 },
    Position { account: Hex32, series: Hex32 },
    Negatives { account: Hex32 },
    Series { id: Hex32 },
    Offer { number: u64 },
    Trade { taker: Hex32, offer: u64, nonce: u64 },
    Request { account: Hex32, asset: Hex32 },
    Asset { id: Hex32 },
    Windows { asset: Hex32 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct VaultAnswer {
    pub vault_id: Hex32,
    pub vault_client: String,
    pub account: Hex32,
    pub delay: u64,
    pub house: Hex32,
    pub insurance: Hex32,
    pub clearing_client: String,
    pub port: String,
    pub version: String,
    pub encoding: String,
    pub max_operators: u64,
    pub max_legs: u64,
    pub max_items: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct CursorsAnswer {
    pub inbox_sequence: u64,
    pub outbox_sequence: u64,
    pub outbox_head: Hex32,
    pub accepted_at: u64,
    pub decided_upto: u64,
    pub offer_count: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingOperators {
    pub at: u64,
    pub threshold: u8,
    pub treasurer: Hex32,
    pub operators: Vec<Hex20>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlAnswer {
    pub operators: Vec<Hex20>,
    pub threshold: u8,
    pub operator_epoch: u64,
    pub treasurer: Hex32,
    pub paused: bool,
    pub pause_used: Vec<Hex20>,
    pub pending_operators: Option<PendingOperators>,
    pub pending_unpause: Option<u64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingCaps {
    pub at: u64,
    pub per_packet: Uint128,
    pub per_hour: Uint128,
    pub per_day: Uint128,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct CapsAnswer {
    pub per_packet: Uint128,
    pub per_hour: Uint128,
    pub per_day: Uint128,
    pub pending: Option<PendingCaps>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct BalanceAnswer {
    pub free: Uint128,
    pub claimable: Uint128,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct PositionAnswer {
    pub quantity: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct NegativesAnswer {
    pub count: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesAnswer {
    /// Expiry of a listed series, 0 of a due.
    pub expiry: u64,
    pub is_due: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct OfferAnswer {
    pub maker: Hex32,
    pub side: u8,
    pub series: Hex32,
    pub asset: Hex32,
    pub quantity: Uint128,
    pub left: Uint128,
    pub premium_per_contract: Uint128,
    pub valid_until: u64,
    pub expiry: u64,
    pub cancelled: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct TradeAnswer {
    pub id: Hex32,
    pub quantity: Uint128,
    pub cost: Uint128,
    pub number: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestAnswer {
    pub id: Hex32,
    pub amount: Uint128,
    pub made_at: u64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct AssetAnswer {
    /// Name of the bank coin, null for a cw20 (or an unknown) asset.
    pub denom: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowAnswer {
    pub hour: u64,
    pub hour_used: Uint128,
    pub day: u64,
    pub day_used: Uint128,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowsAnswer {
    pub settlement: WindowAnswer,
    pub withdrawal: WindowAnswer,
}

/// The part of the cw20 standard that the vault speaks.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenMsg {
    Transfer { recipient: String, amount: Uint128 },
    TransferFrom { owner: String, recipient: String, amount: Uint128 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenQuery {
    Balance { address: String },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenBalance {
    pub balance: Uint128,
}
