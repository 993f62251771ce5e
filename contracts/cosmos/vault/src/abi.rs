//! Strict Solidity ABI of the packet values: flat argument lists, arrays last.
//!
//! `decode_body` reads structure and widths, encodes what it read again and compares: a value with any other byte is
//! not a body. Meaning (sums, order, ranges below the ABI width) is judged by `recv`, which refuses instead.

use crate::values::{
    number_of, word_of, Address, Word, DECIDE_TRADES, DECIDE_WITHDRAWALS, EXECUTE, MAX_ITEMS, MAX_LEGS, MAX_OPERATORS,
    ROTATE_OPERATORS, SET_CAPS, UNPAUSE,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    pub kind: u8,
    pub account: Word,
    pub id: Word,
    pub delta: Word,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradeItem {
    pub id: Word,
    pub taker: Word,
    pub offer: u64,
    pub nonce: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithdrawalItem {
    pub id: Word,
    pub account: Word,
    pub asset: Word,
}

/// An inbox body. Amounts that may be refused for their size stay words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Execute { plan: Word, prices: Vec<(Word, Word)>, legs: Vec<Leg> },
    DecideTrades { plan: Word, upto: u64, items: Vec<TradeItem> },
    DecideWithdrawals { plan: Word, items: Vec<WithdrawalItem> },
    RotateOperators { epoch: u64, threshold: u8, effective: u64, treasurer: Word, operators: Vec<Address> },
    SetCaps { asset: Word, per_packet: Word, per_hour: Word, per_day: Word },
    Unpause {},
}

impl Body {
    /// Number of the kind.
    pub fn kind(&self) -> u16 {
        match self {
            Body::Execute { .. } => EXECUTE,
            Body::DecideTrades { .. } => DECIDE_TRADES,
            Body::DecideWithdrawals { .. } => DECIDE_WITHDRAWALS,
            Body::RotateOperators { .. } => ROTATE_OPERATORS,
            Body::SetCaps { .. } => SET_CAPS,
            Body::Unpause {} => UNPAUSE,
        }
    }
}

/// Writer of words.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A value that begins with its kind.
    pub fn of_kind(kind: u64) -> Self {
        Writer::default().number(kind)
    }

    pub fn word(mut self, word: &Word) -> Self {
        self.bytes.extend_from_slice(word);
        self
    }

    pub fn number(self, number: u64) -> Self {
        self.amount(u128::from(number))
    }

    pub fn amount(self, amount: u128) -> Self {
        self.word(&word_of(amount))
    }

    pub fn count(self, count: usize) -> Self {
        self.amount(count as u128)
    }

    pub fn address(mut self, address: &Address) -> Self {
        self.bytes.extend_from_slice(&[0; 12]);
        self.bytes.extend_from_slice(address);
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.bytes
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn word(&mut self) -> Option<Word> {
        let end = self.at.checked_add(32)?;
        let word = self.bytes.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(word)
    }

    fn number(&mut self) -> Option<u64> {
        u64::try_from(number_of(&self.word()?)?).ok()
    }

    fn byte(&mut self) -> Option<u8> {
        u8::try_from(self.number()?).ok()
    }

    fn address(&mut self) -> Option<Address> {
        let word = self.word()?;
        if word[..12] != [0; 12] {
            return None;
        }
        word[12..].try_into().ok()
    }

    /// The offset of an array; which one it has to be is seen when the value is encoded again.
    fn offset(&mut self) -> Option<()> {
        self.word().map(|_| ())
    }

    fn count(&mut self, most: usize) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= most).then_some(count)
    }
}

/// Read the value of an inbox packet.
///
/// Returns None unless it is the one canonical encoding of an inbox body within the limits of this chain family.
pub fn decode_body(value: &[u8]) -> Option<Body> {
    let mut r = Reader { bytes: value, at: 0 };
    let body = match u16::try_from(r.number()?).ok()? {
        EXECUTE => {
            let plan = r.word()?;
            r.offset()?;
            r.offset()?;
            let mut prices = Vec::new();
            for _ in 0..r.count(MAX_LEGS)? {
                prices.push((r.word()?, r.word()?));
            }
            let mut legs = Vec::new();
            for _ in 0..r.count(MAX_LEGS)? {
                legs.push(Leg { kind: r.byte()?, account: r.word()?, id: r.word()?, delta: r.word()? });
            }
            Body::Execute { plan, prices, legs }
        }
        DECIDE_TRADES => {
            let plan = r.word()?;
            let upto = r.number()?;
            r.offset()?;
            let mut items = Vec::new();
            for _ in 0..r.count(MAX_ITEMS)? {
                items.push(TradeItem { id: r.word()?, taker: r.word()?, offer: r.number()?, nonce: r.number()? });
            }
            Body::DecideTrades { plan, upto, items }
        }
        DECIDE_WITHDRAWALS => {
            let plan = r.word()?;
            r.offset()?;
            let mut items = Vec::new();
            for _ in 0..r.count(MAX_ITEMS)? {
                items.push(WithdrawalItem { id: r.word()?, account: r.word()?, asset: r.word()? });
            }
            Body::DecideWithdrawals { plan, items }
        }
        ROTATE_OPERATORS => {
            let (epoch, threshold, effective) = (r.number()?, r.byte()?, r.number()?);
            let treasurer = r.word()?;
            r.offset()?;
            let mut operators = Vec::new();
            for _ in 0..r.count(MAX_OPERATORS)? {
                operators.push(r.address()?);
            }
            Body::RotateOperators { epoch, threshold, effective, treasurer, operators }
        }
        SET_CAPS => Body::SetCaps { asset: r.word()?, per_packet: r.word()?, per_hour: r.word()?, per_day: r.word()? },
        UNPAUSE => Body::Unpause {},
        _ => return None,
    };
    (encode_body(&body) == value).then_some(body)
}

/// The canonical encoding of an inbox body.
pub fn encode_body(body: &Body) -> Vec<u8> {
    let mut w = Writer::of_kind(u64::from(body.kind()));
    match body {
        Body::Execute { plan, prices, legs } => {
            // the second array begins after the count and the pairs of the first
            w = w.word(plan).count(128).count(160 + 64 * prices.len()).count(prices.len());
            for (series, price) in prices {
                w = w.word(series).word(price);
            }
            w = w.count(legs.len());
            for leg in legs {
                w = w.number(u64::from(leg.kind)).word(&leg.account).word(&leg.id).word(&leg.delta);
            }
        }
        Body::DecideTrades { plan, upto, items } => {
            w = w.word(plan).number(*upto).count(128).count(items.len());
            for item in items {
                w = w.word(&item.id).word(&item.taker).number(item.offer).number(item.nonce);
            }
        }
        Body::DecideWithdrawals { plan, items } => {
            w = w.word(plan).count(96).count(items.len());
            for item in items {
                w = w.word(&item.id).word(&item.account).word(&item.asset);
            }
        }
        Body::RotateOperators { epoch, threshold, effective, treasurer, operators } => {
            w = w.number(*epoch).number(u64::from(*threshold)).number(*effective).word(treasurer);
            w = w.count(192).count(operators.len());
            for operator in operators {
                w = w.address(operator);
            }
        }
        Body::SetCaps { asset, per_packet, per_hour, per_day } => {
            w = w.word(asset).word(per_packet).word(per_hour).word(per_day);
        }
        Body::Unpause {} => {}
    }
    w.done()
}
