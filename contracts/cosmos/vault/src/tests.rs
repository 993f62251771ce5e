//! Unit tests: strictness of the codec, the order of checks, windows, dues, changes under delay, the lock.
//!
//! Whole histories are replayed on the built wasm by the Python tests of the repository.

use std::collections::BTreeMap;

use cosmwasm_std::testing::{message_info, mock_env, MockApi, MockQuerier, MockStorage};
use cosmwasm_std::{
    from_json, to_json_binary, Addr, Api, BankMsg, Binary, Coin, ContractResult, CosmosMsg, Env, Event, HexBinary,
    Order, OwnedDeps, Reply, Response, Storage, SubMsgResponse, SubMsgResult, SystemResult, Timestamp, WasmMsg,
    WasmQuery,
};
use k256::ecdsa::SigningKey;

use crate::abi::{decode_body, encode_body, Body, Leg, TradeItem, WithdrawalItem};
use crate::calls::{account_of, address_of, compute_cost, REPLY_CLAIM, REPLY_DEPOSIT};
use crate::error::Result;
use crate::msg::{
    AssetCaps, BalanceAnswer, CapsAnswer, ControlAnswer, CursorsAnswer, Definition, ExecuteMsg, Hex, InstantiateMsg,
    Packet, Payload, QueryMsg, WindowsAnswer,
};
use crate::packet::{
    compute_caip2, compute_client, compute_commitment, compute_packet_digest, compute_pause_digest, emit,
};
use crate::state::{
    load_config, load_cursors, load_negatives, load_position, save_balance, save_position, Balance, KEPT_PACKETS,
};
use crate::values::{
    compute_denom_asset, compute_due, is_native, is_set, keccak, number_of, signed_of, word_of, Address, Reason, Word,
    CLEARING, DAY, ENCODING, HOUR, HOUSE, HOUSE_NAME, INSURANCE, INSURANCE_NAME, M96, MAX_ITEMS, MAX_LEGS,
    MAX_OPERATORS, PORT, VERSION,
};

const T0: u64 = 1_800_000_000 - 1_800_000_000 % DAY;
const DELAY: u64 = 3 * HOUR;
const COIN: &str = "utoken";
const CAP: u128 = 1_000;

fn word(byte: u8) -> Word {
    [byte; 32]
}

fn signed(delta: i128) -> Word {
    let mut out = [if delta < 0 { 0xff } else { 0 }; 32];
    out[16..].copy_from_slice(&delta.to_be_bytes());
    out
}

struct Operator {
    key: SigningKey,
    address: Address,
}

fn make_operators(first: u8, count: u8) -> Vec<Operator> {
    let mut operators: Vec<Operator> = (first..first + count)
        .map(|i| {
            let key = SigningKey::from_slice(&[i; 32]).unwrap();
            let point = key.verifying_key().to_encoded_point(false);
            let address = keccak(&[&point.as_bytes()[1..]])[12..].try_into().unwrap();
            Operator { key, address }
        })
        .collect();
    operators.sort_by_key(|operator| operator.address);
    operators
}

fn sign(operator: &Operator, digest: &Word) -> Vec<u8> {
    let (signature, parity) = operator.key.sign_prehash_recoverable(digest).unwrap();
    let mut out = signature.to_bytes().to_vec();
    out.push(27 + parity.to_byte());
    out
}

/// What the vault emitted in one call: values of outbox packets.
fn get_values(events: &[Event], name: &str) -> Vec<Vec<u8>> {
    let values = events.iter().filter(|event| event.ty == name);
    values.map(|e| Binary::from_base64(&e.attributes[4].value).unwrap().to_vec()).collect()
}

fn get_ack(response: &Response) -> (u128, u128, Word) {
    let values = get_values(&response.events, "optsettle_out");
    assert_eq!(values.len(), 1);
    let words: Vec<Word> = values[0].chunks(32).map(|w| w.try_into().unwrap()).collect();
    assert_eq!((words.len(), number_of(&words[0])), (7, Some(16)));
    (number_of(&words[4]).unwrap(), number_of(&words[5]).unwrap(), words[6])
}

fn assert_refused(response: &Response, reason: Reason) {
    assert_eq!(get_ack(response), (2, reason as u128, [0; 32]));
}

fn assert_done(response: &Response) {
    assert_eq!(get_ack(response), (1, 0, [0; 32]));
}

fn bits(indices: &[usize]) -> Word {
    let mut out = [0; 32];
    for index in indices {
        out[31 - index / 8] |= 1 << (index % 8);
    }
    out
}

struct World {
    deps: OwnedDeps<MockStorage, MockApi, MockQuerier>,
    env: Env,
    operators: Vec<Operator>,
    epoch: u64,
    sequence: u64,
}

impl World {
    fn new() -> Self {
        let deps = OwnedDeps {
            storage: MockStorage::default(),
            api: MockApi::default(),
            querier: MockQuerier::default(),
            custom_query_type: std::marker::PhantomData,
        };
        let mut env = mock_env();
        env.contract.address = deps.api.addr_make("vault");
        env.block.chain_id = "optsettle-1".into();
        env.block.time = Timestamp::from_seconds(T0);
        let mut world = World { deps, env, operators: make_operators(1, 4), epoch: 0, sequence: 0 };
        let msg = world.make_creation();
        let creator = world.address("creator");
        crate::instantiate(world.deps.as_mut(), world.env.clone(), message_info(&creator, &[]), msg).unwrap();
        world.call("anyone", ExecuteMsg::RegisterDenom { denom: COIN.into() }).unwrap();
        world
    }

    fn make_creation(&self) -> InstantiateMsg {
        InstantiateMsg {
            operators: self.operators.iter().map(|operator| Hex(operator.address)).collect(),
            threshold: 3,
            treasurer: Hex(self.account("treasurer")),
            delay: DELAY,
            caps: [self.coin(), self.token()]
                .map(|asset| AssetCaps {
                    asset: Hex(asset),
                    per_packet: CAP.into(),
                    per_hour: (2 * CAP).into(),
                    per_day: (3 * CAP).into(),
                })
                .to_vec(),
        }
    }

    fn address(&self, name: &str) -> Addr {
        self.deps.api.addr_make(name)
    }

    fn account(&self, name: &str) -> Word {
        account_of(&self.deps.api, &self.address(name)).unwrap()
    }

    fn coin(&self) -> Word {
        compute_denom_asset(COIN)
    }

    fn token(&self) -> Word {
        self.account("token")
    }

    fn at(&mut self, time: u64) -> &mut Self {
        self.env.block.time = Timestamp::from_seconds(time);
        self
    }

    fn now(&self) -> u64 {
        self.env.block.time.seconds()
    }

    fn call_with(&mut self, by: &str, msg: ExecuteMsg, funds: &[Coin]) -> Result<Response> {
        let sender = self.address(by);
        crate::execute(self.deps.as_mut(), self.env.clone(), message_info(&sender, funds), msg)
    }

    fn call(&mut self, by: &str, msg: ExecuteMsg) -> Result<Response> {
        self.call_with(by, msg, &[])
    }

    fn query<T: serde::de::DeserializeOwned>(&self, msg: QueryMsg) -> T {
        from_json(crate::query(self.deps.as_ref(), self.env.clone(), msg).unwrap()).unwrap()
    }

    fn deposit(&mut self, by: &str, amount: u128) {
        self.deposit_for(by, self.account(by), amount);
    }

    fn deposit_for(&mut self, by: &str, beneficiary: Word, amount: u128) {
        let asset = Hex(self.coin());
        let msg = ExecuteMsg::Deposit { asset, amount: amount.into(), beneficiary: Hex(beneficiary) };
        self.call_with(by, msg, &[Coin::new(amount, COIN)]).unwrap();
    }

    fn balance(&self, account: Word) -> (u128, u128) {
        let msg = QueryMsg::Balance { account: Hex(account), asset: Hex(self.coin()) };
        let b: BalanceAnswer = self.query(msg);
        (b.free.u128(), b.claimable.u128())
    }

    fn hold(&mut self, account: Word, series: Word, quantity: i128) {
        save_position(&mut self.deps.storage, &account, &series, quantity);
    }

    fn make_definition(&self) -> Definition {
        Definition {
            underlying: Hex(word(0x41)),
            expiry: T0 + 30 * DAY,
            strike_e8: 5u128.into(),
            right: 1,
            quote_class: Hex(word(0x55)),
            multiplier_e8: 100_000_000u128.into(),
            price_source: Hex(word(0x50)),
            twap_seconds: 60,
        }
    }

    fn list(&mut self) -> Word {
        let definition = self.make_definition();
        let response = self.call("anyone", ExecuteMsg::ListSeries { definition }).unwrap();
        from_json::<Hex<32>>(response.data.unwrap()).unwrap().0
    }

    fn make_packet(&self, value: Vec<u8>) -> Packet {
        Packet {
            sequence: self.sequence + 1,
            source_client: compute_client(&load_config(&self.deps.storage).vault_id),
            destination_client: CLEARING.into(),
            timeout: self.now() + HOUR,
            payloads: vec![Payload {
                source_port: PORT.into(),
                destination_port: PORT.into(),
                version: VERSION.into(),
                encoding: ENCODING.into(),
                value: value.into(),
            }],
        }
    }

    fn get_digest(&self, packet: &Packet) -> Word {
        let vault_id = load_config(&self.deps.storage).vault_id;
        let commitment = compute_commitment(CLEARING, packet.timeout, &packet.payloads[0].value);
        compute_packet_digest(&vault_id, self.epoch, packet.sequence, &commitment)
    }

    fn certify(&self, packet: &Packet) -> Vec<HexBinary> {
        let digest = self.get_digest(packet);
        self.operators.iter().take(3).map(|operator| sign(operator, &digest).into()).collect()
    }

    fn bring(&mut self, packet: &Packet, signatures: Vec<HexBinary>) -> Result<Response> {
        self.call("carrier", ExecuteMsg::Recv { packet: packet.clone(), signatures })
    }

    fn recv_value(&mut self, value: Vec<u8>) -> Result<Response> {
        let packet = self.make_packet(value);
        let signatures = self.certify(&packet);
        let response = self.bring(&packet, signatures)?;
        self.sequence += 1;
        assert_eq!(get_values(&response.events, "optsettle_in"), vec![packet.payloads[0].value.to_vec()]);
        assert_eq!(response.events[0].ty, "optsettle_in");
        assert!(response.messages.is_empty());
        Ok(response)
    }

    fn recv(&mut self, body: &Body) -> Response {
        self.recv_value(encode_body(body)).unwrap()
    }

    fn execute(&mut self, legs: Vec<Leg>) -> Response {
        self.recv(&Body::Execute { plan: [0; 32], prices: vec![], legs })
    }

    fn cash(&self, account: Word, delta: i128) -> Leg {
        Leg { kind: 0, account, id: self.coin(), delta: signed(delta) }
    }

    fn pause(&mut self, operator: usize) -> Result<Response> {
        let digest = compute_pause_digest(&load_config(&self.deps.storage).vault_id, self.epoch);
        let signature = sign(&self.operators[operator], &digest).into();
        self.call("anyone", ExecuteMsg::Pause { signature })
    }

    fn dump(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.deps.storage.range(None, None, Order::Ascending).collect()
    }

    /// The storage without what every packet moves: cursors, head, and the packet by its number.
    fn dump_records(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let is_record = |key: &[u8]| key != b"\x02" && key != b"outbox_head" && key[0] != 16;
        self.dump().into_iter().filter(|(key, _)| is_record(key)).collect()
    }
}

fn leg(kind: u8, account: Word, id: Word, delta: i128) -> Leg {
    Leg { kind, account, id, delta: signed(delta) }
}

fn sorted(mut legs: Vec<Leg>) -> Vec<Leg> {
    legs.sort_by_key(|leg| (leg.kind, leg.account, leg.id));
    legs
}

fn assert_word<T: std::fmt::Debug>(result: Result<T>, word: &str) {
    assert_eq!(result.unwrap_err().word, word);
}

// ---- outbox ----------------------------------------------------------------------------------------------------------

#[test]
fn the_newest_packets_are_kept_by_number_and_no_others() {
    let mut world = World::new();
    let s = &mut world.deps.storage;
    let first = load_cursors(s).outbox_sequence + 1;
    for i in 0_u64..KEPT_PACKETS + 2 {
        emit(s, 1_000 + i, &i.to_be_bytes()).unwrap();
    }
    let kept: Vec<_> = world.dump().into_iter().filter(|(key, _)| key[0] == 16).collect();
    assert_eq!(kept.len() as u64, KEPT_PACKETS);
    for (place, (key, value)) in (2..).zip(kept) {
        assert_eq!(key, [&[16][..], &(first + place).to_be_bytes()].concat());
        assert_eq!(value, [(1_000 + place + DAY).to_be_bytes(), place.to_be_bytes()].concat());
    }
}

// ---- values ----------------------------------------------------------------------------------------------------------

#[test]
fn the_names_of_the_clearings_accounts_hash_to_their_ids() {
    assert_eq!(keccak(&[HOUSE_NAME.as_bytes()]), HOUSE);
    assert_eq!(keccak(&[INSURANCE_NAME.as_bytes()]), INSURANCE);
    assert!(!is_native(&HOUSE) && !is_native(&INSURANCE) && !is_native(&[0; 32]) && is_native(&word(1)));
}

#[test]
fn a_set_is_ascending_without_zero_and_its_threshold_above_two_thirds() {
    let addresses: Vec<Address> = (1..=21).map(|i| [i; 20]).collect();
    assert!(is_set(&addresses[..4], 3) && is_set(&addresses[..20], 14) && is_set(&addresses[..1], 1));
    assert!(!is_set(&addresses[..4], 2) && !is_set(&addresses[..3], 2) && !is_set(&addresses[..4], 5));
    assert!(!is_set(&addresses, 21) && !is_set(&[], 0) && !is_set(&[[0; 20]], 1));
    assert!(!is_set(&[[2; 20], [1; 20]], 2) && !is_set(&[[1; 20], [1; 20]], 2));
}

#[test]
fn a_delta_is_a_number_only_below_2_to_the_96() {
    for delta in [1, -1, M96 as i128, -(M96 as i128)] {
        assert_eq!(signed_of(&signed(delta)), Some(delta));
    }
    for delta in [M96 as i128 + 1, -(M96 as i128) - 1, i128::MAX, i128::MIN] {
        assert_eq!(signed_of(&signed(delta)), None);
    }
    let mut high = signed(5);
    high[0] = 1;
    assert_eq!(signed_of(&high), None);
    let mut mixed = signed(-5);
    mixed[3] = 0;
    assert_eq!(signed_of(&mixed), None);
}

#[test]
fn a_cost_is_rounded_up_and_exact_up_to_its_largest() {
    assert_eq!(compute_cost(1, 1), Some(1));
    assert_eq!(compute_cost(100_000_000, 7), Some(7));
    assert_eq!(compute_cost(100_000_001, 7), Some(8));
    assert_eq!(compute_cost(250_000_000, 3), Some(8));
    // floor((2^96-1)/1e8) * (2^96-1) does not fit; one contract of the dearest premium does
    assert_eq!(compute_cost(M96, M96), None);
    assert_eq!(compute_cost(100_000_000, M96), Some(M96));
    assert_eq!(compute_cost(M96, 1), Some(M96.div_ceil(100_000_000)));
}

#[test]
fn an_odd_chain_id_is_hashed_in_its_caip_2_name() {
    assert_eq!(compute_caip2("cosmoshub-4"), "cosmos:cosmoshub-4");
    // the examples of CAIP-5
    assert_eq!(compute_caip2("Binance-Chain-Tigris"), "cosmos:Binance-Chain-Tigris");
    assert_eq!(compute_caip2("hashed-"), "cosmos:hashed-c904589232422def");
    assert_eq!(compute_caip2("hashed-123"), "cosmos:hashed-99df5cd68192b33e");
    assert_eq!(compute_caip2("123456789012345678901234567890123456789012345678"), "cosmos:hashed-0204c92a0388779d");
    assert_eq!(compute_caip2(" "), "cosmos:hashed-36a9e7f1c95b82ff");
    assert_eq!(compute_caip2("wonderland\u{1f9dd}\u{200d}\u{2642}\u{fe0f}"), "cosmos:hashed-843d2fc87f40eeb9");
}

#[test]
fn an_account_is_a_short_or_a_long_address_and_comes_back() {
    let api = MockApi::default();
    for bytes in [vec![7; 20], vec![7; 32]] {
        let address = api.addr_humanize(&bytes.clone().into()).unwrap();
        let account = account_of(&api, &address).unwrap();
        assert!(account.ends_with(&bytes));
        assert_eq!(address_of(&api, &account).unwrap(), address);
    }
    // 32 bytes that would read as 20, and lengths that no account has
    let mut odd = vec![0; 12];
    odd.extend([7; 20]);
    for bytes in [odd, vec![7; 19], vec![7; 21], vec![7; 33]] {
        let address = api.addr_humanize(&bytes.into()).unwrap();
        assert_word(account_of(&api, &address), "account");
    }
}

// ---- codec -----------------------------------------------------------------------------------------------------------

fn make_bodies() -> Vec<Body> {
    let item = |i: u8| TradeItem { id: word(i), taker: word(9), offer: u64::MAX, nonce: u64::from(i) };
    let request = |i: u8| WithdrawalItem { id: word(i), account: word(9), asset: word(8) };
    vec![
        Body::Execute { plan: [0; 32], prices: vec![], legs: vec![] },
        Body::Execute {
            plan: word(3),
            prices: vec![(word(1), word(2)), (word(0), word(0xff))],
            legs: vec![leg(0, word(1), word(2), -5), leg(255, word(1), word(2), 5)],
        },
        Body::DecideTrades { plan: word(3), upto: u64::MAX, items: vec![] },
        Body::DecideTrades { plan: word(3), upto: 0, items: vec![item(1), item(0)] },
        Body::DecideWithdrawals { plan: word(3), items: vec![] },
        Body::DecideWithdrawals { plan: word(3), items: vec![request(1), request(2), request(3)] },
        Body::RotateOperators { epoch: 1, threshold: 255, effective: 2, treasurer: word(7), operators: vec![] },
        Body::RotateOperators { epoch: 1, threshold: 3, effective: 2, treasurer: word(7), operators: vec![[9; 20]; 2] },
        Body::SetCaps { asset: word(1), per_packet: word(0xff), per_hour: word(0), per_day: word(2) },
        Body::Unpause {},
    ]
}

#[test]
fn what_is_encoded_decodes_to_itself() {
    for body in make_bodies() {
        assert_eq!(decode_body(&encode_body(&body)), Some(body));
    }
}

#[test]
fn a_value_with_one_byte_changed_is_refused_or_means_something_else_in_its_one_form() {
    for body in make_bodies() {
        let value = encode_body(&body);
        for at in 0..value.len() {
            for flip in [1, 0x20, 0x80, 0xff] {
                let mut other = value.clone();
                other[at] ^= flip;
                if let Some(read) = decode_body(&other) {
                    assert_ne!(read, body);
                    assert_eq!(encode_body(&read), other);
                }
            }
        }
    }
}

#[test]
fn a_value_that_is_cut_or_grown_is_refused() {
    for body in make_bodies() {
        let value = encode_body(&body);
        for length in 0..value.len() {
            assert_eq!(decode_body(&value[..length]), None);
        }
        for grown in [vec![0], vec![0; 32], vec![1; 32]] {
            assert_eq!(decode_body(&[value.clone(), grown].concat()), None);
        }
    }
}

#[test]
fn other_offsets_and_dirty_widths_are_refused() {
    // (body, word, byte of the word): kinds, offsets, counts, widths
    let bodies = make_bodies();
    let places = [
        (1, 0, 29),
        (1, 2, 31),
        (1, 3, 31),
        (1, 4, 0),
        (1, 9, 0),
        (1, 10, 0),
        (1, 10, 30),
        (3, 2, 23),
        (3, 3, 31),
        (3, 4, 5),
        (3, 7, 23),
        (3, 8, 0),
        (5, 2, 31),
        (5, 3, 0),
        (7, 1, 23),
        (7, 2, 30),
        (7, 3, 0),
        (7, 5, 31),
        (7, 6, 0),
        (7, 7, 11),
        (7, 8, 0),
        (9, 0, 0),
    ]; // fmt: skip
    for (index, at, byte) in places {
        let mut value = encode_body(&bodies[index]);
        assert!(decode_body(&value).is_some());
        value[32 * at + byte] ^= 1;
        assert_eq!(decode_body(&value), None, "body {index} word {at} byte {byte}");
    }
}

#[test]
fn lists_end_at_their_limits() {
    let execute = |prices: usize, legs: usize| {
        let prices = vec![(word(1), word(2)); prices];
        encode_body(&Body::Execute { plan: [0; 32], prices, legs: vec![leg(0, word(1), word(2), 1); legs] })
    };
    assert!(decode_body(&execute(MAX_LEGS, MAX_LEGS)).is_some());
    assert!(decode_body(&execute(MAX_LEGS + 1, 0)).is_none());
    assert!(decode_body(&execute(0, MAX_LEGS + 1)).is_none());
    let trades = |count: usize| {
        let item = TradeItem { id: word(1), taker: word(2), offer: 3, nonce: 4 };
        encode_body(&Body::DecideTrades { plan: [0; 32], upto: 0, items: vec![item; count] })
    };
    assert!(decode_body(&trades(MAX_ITEMS)).is_some() && decode_body(&trades(MAX_ITEMS + 1)).is_none());
    let withdrawals = |count: usize| {
        let item = WithdrawalItem { id: word(1), account: word(2), asset: word(3) };
        encode_body(&Body::DecideWithdrawals { plan: [0; 32], items: vec![item; count] })
    };
    assert!(decode_body(&withdrawals(MAX_ITEMS)).is_some() && decode_body(&withdrawals(MAX_ITEMS + 1)).is_none());
    let rotation = |count: usize| {
        let operators = vec![[1; 20]; count];
        encode_body(&Body::RotateOperators { epoch: 0, threshold: 0, effective: 0, treasurer: word(1), operators })
    };
    assert!(decode_body(&rotation(MAX_OPERATORS)).is_some() && decode_body(&rotation(MAX_OPERATORS + 1)).is_none());
}

#[test]
fn a_count_of_2_to_the_64_or_more_is_refused_without_reading_on() {
    let mut value = encode_body(&Body::DecideWithdrawals { plan: [0; 32], items: vec![] });
    value[3 * 32..].copy_from_slice(&[0xff; 32]);
    assert_eq!(decode_body(&value), None);
}

#[test]
fn ids_in_json_are_lower_case_and_of_one_length_and_unknown_fields_are_refused() {
    let good = format!(r#"{{"escape":{{"asset":"{}"}}}}"#, "ab".repeat(32));
    assert!(from_json::<ExecuteMsg>(good.as_bytes()).is_ok());
    for bad in [
        good.replace("ab", "AB"),
        good.replace("\"ab", "\"0xab"),
        good.replacen("ab", "a", 1),
        good.replacen("ab", "abab", 1),
        good.replace("}}", r#","more":1}}"#),
        good.replace("escape", "migrate"),
    ] {
        assert!(from_json::<ExecuteMsg>(bad.as_bytes()).is_err(), "{bad}");
    }
}

// ---- creation --------------------------------------------------------------------------------------------------------

#[test]
fn a_creation_that_breaks_one_rule_is_refused() {
    let world = World::new();
    let create = |change: &dyn Fn(&mut InstantiateMsg), funds: &[Coin]| {
        let mut fresh = World::new();
        fresh.deps.storage = MockStorage::default();
        let mut msg = world.make_creation();
        change(&mut msg);
        let creator = fresh.address("creator");
        crate::instantiate(fresh.deps.as_mut(), fresh.env.clone(), message_info(&creator, funds), msg)
    };
    assert!(create(&|_| {}, &[]).is_ok());
    assert_word(create(&|_| {}, &[Coin::new(1u128, COIN)]), "funds");
    assert_word(create(&|m| m.threshold = 2, &[]), "operators");
    assert_word(create(&|m| m.operators.swap(0, 1), &[]), "operators");
    assert_word(create(&|m| m.treasurer = Hex(HOUSE), &[]), "operators");
    assert_word(create(&|m| m.treasurer = Hex([0; 32]), &[]), "operators");
    assert_word(create(&|m| m.delay = 1 << 32, &[]), "delay");
    assert_word(create(&|m| m.caps[0].asset = Hex(INSURANCE), &[]), "asset");
    assert_word(create(&|m| m.caps[1].asset = m.caps[0].asset, &[]), "asset");
    assert_word(create(&|m| m.caps[1].per_hour = 0u128.into(), &[]), "caps");
    assert_word(create(&|m| m.caps[1].per_day = (M96 + 1).into(), &[]), "caps");
}

// ---- recv ------------------------------------------------------------------------------------------------------------

#[test]
fn the_first_failed_check_of_recv_names_the_error() {
    let mut world = World::new();
    let before = world.dump();
    // from the last check to the first: each flaw is put on top of those before it and takes over the word
    let mut packet = world.make_packet(vec![0; 32]);
    let certified = world.certify(&packet);
    assert_word(world.bring(&packet, certified), "malformed");
    assert_word(world.bring(&packet, vec![]), "signatures");
    packet.timeout = world.now();
    assert_word(world.bring(&packet, vec![]), "timeout");
    packet.payloads[0].version = "optsettle-2".into();
    assert_word(world.bring(&packet, vec![]), "envelope");
    packet.sequence = 2;
    assert_word(world.bring(&packet, vec![]), "sequence");
    assert_eq!(world.dump(), before);
}

#[test]
fn every_text_of_the_envelope_counts_and_so_does_the_one_payload() {
    let mut world = World::new();
    let good = world.make_packet(encode_body(&Body::Unpause {}));
    let flaws: [&dyn Fn(&mut Packet); 8] = [
        &|p| p.source_client.push('0'),
        &|p| p.destination_client = p.source_client.clone(),
        &|p| p.payloads[0].source_port.clear(),
        &|p| p.payloads[0].destination_port = "transfer".into(),
        &|p| p.payloads[0].version.push(' '),
        &|p| p.payloads[0].encoding = "application/json".into(),
        &|p| p.payloads.push(p.payloads[0].clone()),
        &|p| p.payloads.clear(),
    ];
    for flaw in flaws {
        let mut packet = good.clone();
        flaw(&mut packet);
        let signatures = world.certify(&good);
        assert_word(world.bring(&packet, signatures), "envelope");
    }
    let signatures = world.certify(&good);
    assert!(world.bring(&good, signatures).is_ok());
}

#[test]
fn a_packet_is_good_before_its_timeout_and_for_a_day_at_most() {
    for (ahead, is_good) in [(0, false), (1, true), (DAY, true), (DAY + 1, false), (u64::MAX - T0, false)] {
        let mut world = World::new();
        let mut packet = world.make_packet(encode_body(&Body::Unpause {}));
        packet.timeout = world.now() + ahead;
        let signatures = world.certify(&packet);
        let result = world.bring(&packet, signatures);
        assert_eq!(result.map_err(|e| e.word).err(), (!is_good).then_some("timeout"));
    }
}

#[test]
fn a_certificate_is_exactly_m_sound_signatures_of_the_set_ascending() {
    let mut world = World::new();
    let packet = world.make_packet(encode_body(&Body::Unpause {}));
    let digest = world.get_digest(&packet);
    let all: Vec<Vec<u8>> = world.operators.iter().map(|operator| sign(operator, &digest)).collect();
    let stranger = sign(&make_operators(50, 1)[0], &digest);
    let pick = |picked: &[&Vec<u8>]| picked.iter().map(|s| HexBinary::from(s.to_vec())).collect::<Vec<_>>();
    // the high-s twin: n - s and the other parity
    let mut high = all[0].clone();
    let mut borrow = 0i16;
    let order = hex_word("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
    for i in (0..32).rev() {
        let digit = i16::from(order[i]) - i16::from(high[32 + i]) - borrow;
        borrow = i16::from(digit < 0);
        high[32 + i] = (digit & 0xff) as u8;
    }
    high[64] = 55 - high[64];
    let mut parity = all[0].clone();
    parity[64] -= 27;
    let mut long = all[0].clone();
    long.push(0);
    let mut zero = all[0].clone();
    zero[..32].fill(0);
    let short = all[0][..64].to_vec();
    let bad: Vec<Vec<HexBinary>> = vec![
        pick(&[]),
        pick(&[&all[0], &all[1]]),
        pick(&[&all[0], &all[1], &all[2], &all[3]]),
        pick(&[&all[1], &all[0], &all[2]]),
        pick(&[&all[0], &all[1], &all[1]]),
        pick(&[&all[0], &all[1], &stranger]),
        pick(&[&stranger, &all[0], &all[1]]),
        pick(&[&high, &all[1], &all[2]]),
        pick(&[&parity, &all[1], &all[2]]),
        pick(&[&long, &all[1], &all[2]]),
        pick(&[&short, &all[1], &all[2]]),
        pick(&[&zero, &all[1], &all[2]]),
    ];
    for signatures in bad {
        assert_word(world.bring(&packet, signatures), "signatures");
    }
    let good = pick(&[&all[0], &all[2], &all[3]]);
    assert!(world.bring(&packet, good).is_ok());
}

fn hex_word(text: &str) -> Word {
    HexBinary::from_hex(text).unwrap().as_slice().try_into().unwrap()
}

#[test]
fn a_packet_is_taken_once() {
    let mut world = World::new();
    let packet = world.make_packet(encode_body(&Body::Execute { plan: [0; 32], prices: vec![], legs: vec![] }));
    let signatures = world.certify(&packet);
    assert_done(&world.bring(&packet, signatures.clone()).unwrap());
    assert_word(world.bring(&packet, signatures), "sequence");
    let cursors: CursorsAnswer = world.query(QueryMsg::Cursors {});
    assert_eq!((cursors.inbox_sequence, cursors.outbox_sequence), (1, 1));
}

// ---- Execute ---------------------------------------------------------------------------------------------------------

#[test]
fn a_refused_body_writes_nothing_and_names_the_first_flaw_of_its_first_bad_leg() {
    let mut world = World::new();
    world.deposit("alice", 100);
    world.deposit_for("bob", HOUSE, 100);
    let series = world.list();
    let (alice, bob) = (world.account("alice"), world.account("bob"));
    world.hold(alice, series, 5);
    let mut high = world.cash(alice, 1);
    high.delta[0] = 1;
    let unknown = |kind: u8, delta: i128| leg(kind, alice, word(0xee), delta);
    let cases: Vec<(Vec<Leg>, Reason)> = vec![
        (vec![leg(2, [0; 32], [0; 32], 0)], Reason::LegKind),
        (vec![leg(0, [0; 32], [0; 32], 0)], Reason::Zero),
        (vec![Leg { account: [0; 32], ..high.clone() }], Reason::Range),
        (vec![leg(0, [0; 32], [0; 32], -(M96 as i128) - 1)], Reason::Range),
        (vec![leg(0, [0; 32], [0; 32], 1)], Reason::Account),
        (vec![world.cash(alice, -1), leg(0, alice, world.coin(), 1)], Reason::Order),
        (vec![leg(1, alice, series, -1), leg(0, alice, word(0xee), 1)], Reason::Order),
        (vec![unknown(0, 1)], Reason::Asset),
        (vec![world.cash(alice, -101)], Reason::Cash),
        (vec![world.cash(alice, M96 as i128)], Reason::Overflow),
        (vec![unknown(1, 1)], Reason::Series),
        (vec![leg(1, alice, series, 1)], Reason::Direction),
        (vec![leg(1, alice, series, -6)], Reason::Direction),
        (vec![leg(1, bob, series, -1)], Reason::Direction),
        (vec![world.cash(alice, -5)], Reason::Sum),
        (vec![leg(1, alice, series, -5)], Reason::Sum),
        // a sound leg first does not change what the bad one is refused for
        (sorted(vec![world.cash(HOUSE, -5), world.cash(alice, -101)]), Reason::Cash),
    ];
    let before = world.dump_records();
    for (legs, reason) in cases {
        let response = world.execute(legs);
        assert_refused(&response, reason);
        assert_eq!(world.dump_records(), before, "{reason:?}");
    }
}

#[test]
fn cash_and_positions_move_as_the_legs_say() {
    let mut world = World::new();
    world.deposit("alice", 100);
    let series = world.list();
    let (alice, bob) = (world.account("alice"), world.account("bob"));
    world.hold(alice, series, 5);
    world.hold(HOUSE, series, -5);
    let legs = vec![
        world.cash(alice, -60),
        world.cash(bob, 50),
        world.cash(HOUSE, 10),
        leg(1, alice, series, -5),
        leg(1, HOUSE, series, 5),
    ];
    assert_done(&world.execute(sorted(legs)));
    assert_eq!(world.balance(alice), (40, 0));
    assert_eq!(world.balance(bob), (50, 0));
    assert_eq!(world.balance(HOUSE), (10, 0));
    assert_eq!(load_position(&world.deps.storage, &alice, &series), 0);
    assert_eq!(load_position(&world.deps.storage, &HOUSE, &series), 0);
}

#[test]
fn a_due_moves_either_way_and_counts_as_a_negative_position() {
    let mut world = World::new();
    let alice = world.account("alice");
    let due = compute_due(&word(0x55));
    let legs = |delta: i128| sorted(vec![leg(1, alice, due, delta), leg(1, HOUSE, due, -delta)]);
    assert_refused(&world.execute(legs(-7)), Reason::Series);
    world.list(); // records the due of its class
    assert_done(&world.execute(legs(-7)));
    assert_eq!(load_negatives(&world.deps.storage, &alice), 1);
    assert_done(&world.execute(legs(-1)));
    assert_eq!(load_negatives(&world.deps.storage, &alice), 1);
    assert_done(&world.execute(legs(10)));
    assert_eq!(load_negatives(&world.deps.storage, &alice), 0);
    assert_eq!(load_position(&world.deps.storage, &alice, &due), 2);
    assert_eq!(load_negatives(&world.deps.storage, &HOUSE), 0);
}

#[test]
fn a_position_stays_inside_128_bits() {
    let mut world = World::new();
    world.list();
    let (alice, due) = (world.account("alice"), compute_due(&word(0x55)));
    world.hold(alice, due, i128::MAX);
    world.hold(HOUSE, due, i128::MIN + 1);
    let legs = |delta: i128| sorted(vec![leg(1, alice, due, delta), leg(1, HOUSE, due, -delta)]);
    assert_refused(&world.execute(legs(1)), Reason::Overflow);
    world.hold(alice, due, i128::MIN);
    assert_refused(&world.execute(legs(-1)), Reason::Overflow);
    assert_done(&world.execute(legs(1)));
}

#[test]
fn caps_hold_per_packet_hour_and_day_for_users_debits_alone() {
    let mut world = World::new();
    let alice = world.account("alice");
    world.deposit("alice", 100_000);
    world.deposit_for("alice", HOUSE, 100_000);
    let pay = |world: &mut World, amount: u128| {
        let legs = vec![world.cash(alice, -(amount as i128)), world.cash(HOUSE, amount as i128)];
        world.execute(sorted(legs))
    };
    assert_refused(&pay(&mut world, CAP + 1), Reason::Cap);
    assert_done(&pay(&mut world, CAP));
    assert_done(&pay(&mut world, CAP));
    assert_refused(&pay(&mut world, 1), Reason::Cap);
    world.at(T0 + HOUR - 1);
    assert_refused(&pay(&mut world, 1), Reason::Cap);
    world.at(T0 + HOUR);
    assert_done(&pay(&mut world, CAP));
    assert_refused(&pay(&mut world, 1), Reason::Cap); // the day is used up
    world.at(T0 + DAY - 1);
    assert_refused(&pay(&mut world, 1), Reason::Cap);
    world.at(T0 + DAY);
    assert_done(&pay(&mut world, 1));
    let windows: WindowsAnswer = world.query(QueryMsg::Windows { asset: Hex(world.coin()) });
    assert_eq!((windows.settlement.hour, windows.settlement.day), ((T0 + DAY) / HOUR, (T0 + DAY) / DAY));
    assert_eq!((windows.settlement.hour_used.u128(), windows.settlement.day_used.u128()), (1, 1));
    assert_eq!(windows.withdrawal.day_used.u128(), 0);
    // HOUSE pays without a cap
    let legs = vec![world.cash(alice, 50_000), world.cash(HOUSE, -50_000)];
    assert_done(&world.execute(sorted(legs)));
}

// ---- trades ----------------------------------------------------------------------------------------------------------

fn offer(world: &mut World, series: Word, side: u8, quantity: u128, premium: u128) -> Result<Response> {
    let msg = ExecuteMsg::Offer {
        side,
        series: Hex(series),
        asset: Hex(world.coin()),
        quantity: quantity.into(),
        premium_per_contract: premium.into(),
        valid_until: T0 + 10 * DAY,
    };
    world.call("maker", msg)
}

fn take(world: &mut World, by: &str, offer: u64, quantity: u128, nonce: u64) -> Result<Word> {
    let response = world.call(by, ExecuteMsg::Take { offer, quantity: quantity.into(), nonce, for_house: false })?;
    Ok(from_json::<Hex<32>>(response.data.unwrap()).unwrap().0)
}

fn decide(world: &mut World, upto: u64, items: &[(Word, Word, u64, u64)]) -> Response {
    let items = items.iter().map(|(id, taker, offer, nonce)| TradeItem {
        id: *id,
        taker: *taker,
        offer: *offer,
        nonce: *nonce,
    });
    world.recv(&Body::DecideTrades { plan: [0; 32], upto, items: items.collect() })
}

#[test]
fn a_decided_trade_moves_cash_and_positions_once_and_only_by_its_own_id() {
    let mut world = World::new();
    let series = world.list(); // packet 1
    let (maker, alice) = (world.account("maker"), world.account("alice"));
    world.deposit("alice", 100); // packet 2
    offer(&mut world, series, 1, 300_000_000, 10).unwrap();
    let id = take(&mut world, "alice", 1, 200_000_000, 7).unwrap(); // packet 3
    assert_word(take(&mut world, "alice", 1, 1, 7), "open");
    let item = (id, alice, 1, 7);
    let wrong = (word(0xaa), alice, 1, 7);
    let other_key = (id, alice, 1, 8);
    let response = decide(&mut world, 0, &[wrong, other_key, item, item]);
    assert_eq!(get_ack(&response), (1, 0, bits(&[2])));
    assert_eq!(world.balance(alice), (80, 0));
    assert_eq!(world.balance(maker), (20, 0));
    assert_eq!(load_position(&world.deps.storage, &alice, &series), 200_000_000);
    assert_eq!(load_position(&world.deps.storage, &maker, &series), -200_000_000);
    assert_eq!(load_negatives(&world.deps.storage, &maker), 1);
    // the key is free again, and a trade with a packet number up to `upto` is over without being named
    let id = take(&mut world, "alice", 1, 100_000_000, 7).unwrap(); // packet 5
    assert_refused(&decide(&mut world, 6, &[]), Reason::Range);
    assert_eq!(get_ack(&decide(&mut world, 5, &[])), (1, 0, [0; 32]));
    assert_eq!(get_ack(&decide(&mut world, 5, &[(id, alice, 1, 7)])), (1, 0, [0; 32]));
    assert_refused(&decide(&mut world, 4, &[]), Reason::Range);
    assert_eq!(world.balance(alice), (80, 0));
}

#[test]
fn a_trade_without_cash_or_time_or_what_is_left_gets_a_zero_and_is_over() {
    for (spoil, name) in [(0, "cash"), (1, "time"), (2, "left"), (3, "nothing")] {
        let mut world = World::new();
        let series = world.list();
        let alice = world.account("alice");
        world.deposit("alice", 100);
        offer(&mut world, series, 1, 100_000_000, 10).unwrap();
        let id = take(&mut world, "alice", 1, 100_000_000, 0).unwrap();
        let mut items = vec![];
        match spoil {
            0 => save_balance(&mut world.deps.storage, &alice, &compute_denom_asset(COIN), &Balance::default()),
            1 => _ = world.at(T0 + 10 * DAY),
            2 => items.push((take(&mut world, "alice", 1, 1, 1).unwrap(), alice, 1, 1)),
            _ => {}
        }
        items.push((id, alice, 1, 0));
        let expected = match spoil {
            2 => bits(&[0]),
            3 => bits(&[0]),
            _ => bits(&[]),
        };
        assert_eq!(get_ack(&decide(&mut world, 0, &items)), (1, 0, expected), "{name}");
        assert_eq!(get_ack(&decide(&mut world, 0, &items)), (1, 0, [0; 32]), "{name}");
    }
}

#[test]
fn the_house_may_take_the_makers_own_offer_but_the_maker_may_not() {
    let mut world = World::new();
    let series = world.list();
    world.deposit_for("maker", HOUSE, 100);
    offer(&mut world, series, 1, 100, 10).unwrap();
    assert_word(take(&mut world, "maker", 1, 1, 0), "self");
    let msg = ExecuteMsg::Take { offer: 1, quantity: 100u128.into(), nonce: 0, for_house: true };
    let response = world.call("maker", msg).unwrap();
    let value = &get_values(&response.events, "optsettle_out")[0];
    assert_eq!(value[32..64], HOUSE[..]);
    assert_eq!(value[32 * 8..32 * 9], HOUSE[..]);
}

#[test]
fn the_checks_of_a_take_come_in_order() {
    let mut world = World::new();
    let series = world.list();
    assert_word(take(&mut world, "alice", 1, 0, 0), "unknown");
    offer(&mut world, series, 1, 100_000_000, 10).unwrap();
    assert_word(take(&mut world, "alice", 1, 0, 0), "amount");
    assert_word(take(&mut world, "alice", 1, 100_000_001, 0), "amount");
    assert_word(take(&mut world, "alice", 1, 1, 0), "cash");
    world.at(T0 + 10 * DAY);
    assert_word(take(&mut world, "alice", 1, 0, 0), "expired");
    assert_word(world.call("alice", ExecuteMsg::Cancel { offer: 1 }), "owner");
    assert!(world.call("maker", ExecuteMsg::Cancel { offer: 1 }).is_ok());
    assert_word(world.call("maker", ExecuteMsg::Cancel { offer: 1 }), "closed");
    assert_word(take(&mut world, "alice", 1, 0, 0), "closed");
    world.pause(0).unwrap();
    assert_word(take(&mut world, "alice", 1, 0, 0), "paused");
}

// ---- withdrawals -----------------------------------------------------------------------------------------------------

fn request(world: &mut World, by: &str, amount: u128, for_house: bool) -> Result<Word> {
    let asset = Hex(world.coin());
    let response = world.call(by, ExecuteMsg::RequestWithdrawal { asset, amount: amount.into(), for_house })?;
    Ok(from_json::<Hex<32>>(response.data.unwrap()).unwrap().0)
}

fn pay_out(world: &mut World, items: &[(Word, Word)]) -> Response {
    let asset = world.coin();
    let items = items.iter().map(|(id, account)| WithdrawalItem { id: *id, account: *account, asset }).collect();
    world.recv(&Body::DecideWithdrawals { plan: [0; 32], items })
}

#[test]
fn a_request_is_paid_within_the_caps_and_one_that_is_not_stays_open() {
    let mut world = World::new();
    let (alice, bob) = (world.account("alice"), world.account("bob"));
    world.deposit("alice", 10_000);
    world.deposit("bob", 10_000);
    let old = request(&mut world, "alice", 1, false).unwrap();
    let id = request(&mut world, "alice", 700, false).unwrap();
    let other = request(&mut world, "bob", 301, false).unwrap();
    // replaced, paid, above the cap of the packet, repeated
    let response = pay_out(&mut world, &[(old, alice), (id, alice), (other, bob), (id, alice)]);
    assert_eq!(get_ack(&response), (1, 0, bits(&[1])));
    assert_eq!(world.balance(alice), (9_300, 700));
    let response = pay_out(&mut world, &[(other, bob)]);
    assert_eq!(get_ack(&response), (1, 0, bits(&[0])));
    assert_eq!(world.balance(bob), (9_699, 301));
    let windows: WindowsAnswer = world.query(QueryMsg::Windows { asset: Hex(world.coin()) });
    assert_eq!((windows.withdrawal.day_used.u128(), windows.settlement.day_used.u128()), (1_001, 0));
}

#[test]
fn a_request_is_good_for_a_day_to_the_second() {
    for (age, expected) in [(DAY, bits(&[0])), (DAY + 1, [0; 32])] {
        let mut world = World::new();
        let alice = world.account("alice");
        world.deposit("alice", 10);
        let id = request(&mut world, "alice", 10, false).unwrap();
        world.at(T0 + age);
        assert_eq!(get_ack(&pay_out(&mut world, &[(id, alice)])), (1, 0, expected));
    }
}

#[test]
fn what_the_house_withdraws_goes_to_the_treasurer() {
    let mut world = World::new();
    let treasurer = world.account("treasurer");
    world.deposit_for("alice", HOUSE, 10);
    assert_word(request(&mut world, "alice", 10, true), "owner");
    let id = request(&mut world, "treasurer", 10, true).unwrap();
    assert_eq!(get_ack(&pay_out(&mut world, &[(id, HOUSE)])), (1, 0, bits(&[0])));
    assert_eq!((world.balance(HOUSE), world.balance(treasurer)), ((0, 0), (0, 10)));
}

// ---- control ---------------------------------------------------------------------------------------------------------

#[test]
fn a_pause_is_once_per_operator_and_epoch_and_stops_what_it_should() {
    let mut world = World::new();
    world.deposit("alice", 10);
    world.pause(1).unwrap();
    assert_word(world.pause(2), "paused");
    let msg = ExecuteMsg::Deposit { asset: Hex(world.coin()), amount: 1u128.into(), beneficiary: Hex(word(1)) };
    assert_word(world.call_with("alice", msg, &[Coin::new(1u128, COIN)]), "paused");
    assert_refused(&world.execute(vec![]), Reason::Paused);
    assert_refused(&decide(&mut world, 99, &[]), Reason::Paused);
    assert_refused(&pay_out(&mut world, &[]), Reason::Paused);
    assert!(request(&mut world, "alice", 1, false).is_ok());
    assert_done(&world.recv(&Body::Unpause {}));
    world.at(T0 + DELAY - 1);
    assert_refused(&world.execute(vec![]), Reason::Paused);
    world.at(T0 + DELAY);
    assert_done(&world.execute(vec![]));
    assert_refused(&world.recv(&Body::Unpause {}), Reason::NotPaused);
    assert_word(world.pause(1), "used");
    world.pause(2).unwrap();
    let control: ControlAnswer = world.query(QueryMsg::Control {});
    let used: Vec<Address> = control.pause_used.iter().map(|operator| operator.0).collect();
    assert_eq!(used, [world.operators[1].address, world.operators[2].address]);
}

#[test]
fn a_pause_that_is_not_signed_by_an_operator_reverts() {
    let mut world = World::new();
    world.operators[0] = make_operators(77, 1).remove(0);
    assert_word(world.pause(0), "signature");
    assert_word(world.call("anyone", ExecuteMsg::Pause { signature: vec![1; 64].into() }), "signature");
    world.epoch = 1;
    assert_word(world.pause(1), "signature");
}

#[test]
fn a_new_set_takes_over_at_its_instant_with_its_treasurer_and_without_a_packet() {
    let mut world = World::new();
    let next = make_operators(20, 3);
    let operators: Vec<Address> = next.iter().map(|operator| operator.address).collect();
    let treasurer = world.account("next treasurer");
    let effective = T0 + DELAY;
    let body = |epoch: u64, threshold: u8, effective: u64, treasurer: Word| Body::RotateOperators {
        epoch,
        threshold,
        effective,
        treasurer,
        operators: operators.clone(),
    };
    assert_refused(&world.recv(&body(0, 0, 0, [0; 32])), Reason::Epoch);
    assert_refused(&world.recv(&body(2, 3, effective, treasurer)), Reason::Epoch);
    assert_refused(&world.recv(&body(1, 2, 0, treasurer)), Reason::Operators);
    assert_refused(&world.recv(&body(1, 3, 0, HOUSE)), Reason::Operators);
    assert_refused(&world.recv(&body(1, 3, effective - 1, treasurer)), Reason::Delay);
    assert_done(&world.recv(&body(1, 3, effective, treasurer)));
    world.pause(0).unwrap();
    world.at(effective - 1);
    let control: ControlAnswer = world.query(QueryMsg::Control {});
    assert_eq!((control.operator_epoch, control.pending_operators.unwrap().at), (0, effective));
    assert_refused(&world.execute(vec![]), Reason::Paused); // the old set still signs
    world.at(effective);
    let packet = world.make_packet(encode_body(&Body::Unpause {}));
    let signatures = world.certify(&packet);
    assert_word(world.bring(&packet, signatures), "signatures");
    world.operators = next;
    world.epoch = 1;
    assert_refused(&world.execute(vec![]), Reason::Paused); // the new set signs; a pause outlives its epoch
    let control: ControlAnswer = world.query(QueryMsg::Control {});
    assert_eq!((control.operator_epoch, control.treasurer.0, control.pause_used), (1, treasurer, vec![]));
    assert!(control.paused && control.pending_operators.is_none());
    assert!(request(&mut world, "next treasurer", 1, true).is_ok());
    assert_word(request(&mut world, "treasurer", 1, true), "owner");
}

#[test]
fn falling_caps_fall_at_once_and_rising_ones_wait() {
    let mut world = World::new();
    let asset = world.coin();
    let set = |per_packet: u128, per_hour: u128, per_day: u128| Body::SetCaps {
        asset,
        per_packet: word_of(per_packet),
        per_hour: word_of(per_hour),
        per_day: word_of(per_day),
    };
    let read = |world: &World| {
        let c: CapsAnswer = world.query(QueryMsg::Caps { asset: Hex(asset) });
        ([c.per_packet.u128(), c.per_hour.u128(), c.per_day.u128()], c.pending.map(|p| p.at))
    };
    assert_refused(&world.recv(&set(0, 1, 1)), Reason::Range);
    assert_refused(&world.recv(&set(1, M96 + 1, 1)), Reason::Range);
    assert_done(&world.recv(&set(10, 5_000, 3_000)));
    assert_eq!(read(&world), ([10, 2_000, 3_000], Some(T0 + DELAY)));
    world.at(T0 + DELAY);
    assert_eq!(read(&world), ([10, 5_000, 3_000], None));
    assert_done(&world.recv(&set(10, 6_000, 3_000)));
    assert_done(&world.recv(&set(10, 5_000, 2_000))); // replaces the rise, and only falls
    assert_eq!(read(&world), ([10, 5_000, 2_000], None));
    world.at(T0 + 9 * DELAY);
    assert_eq!(read(&world), ([10, 5_000, 2_000], None));
}

#[test]
fn a_new_asset_is_in_force_after_the_delay() {
    let mut world = World::new();
    let asset = world.account("new token");
    let set = |asset: Word| Body::SetCaps { asset, per_packet: word_of(1), per_hour: word_of(2), per_day: word_of(3) };
    assert_refused(&world.recv(&set(HOUSE)), Reason::Asset);
    assert_refused(&world.recv(&set([0; 32])), Reason::Asset);
    assert_done(&world.recv(&set(asset)));
    let ask = |world: &mut World| {
        let msg = ExecuteMsg::RequestWithdrawal { asset: Hex(asset), amount: 1u128.into(), for_house: false };
        world.call("alice", msg)
    };
    world.at(T0 + DELAY - 1);
    assert_word(ask(&mut world), "asset");
    world.at(T0 + DELAY);
    assert!(ask(&mut world).is_ok());
}

#[test]
fn an_account_may_escape_after_thirty_silent_days_without_negative_positions() {
    let mut world = World::new();
    let alice = world.account("alice");
    world.deposit("alice", 10);
    world.list();
    world.at(T0 + DAY);
    assert_refused(&world.recv(&Body::Unpause {}), Reason::NotPaused); // a refused packet counts
    let escape = |world: &mut World| {
        let asset = Hex(world.coin());
        world.call("alice", ExecuteMsg::Escape { asset })
    };
    world.at(T0 + 31 * DAY - 1);
    assert_word(escape(&mut world), "early");
    world.at(T0 + 31 * DAY);
    crate::state::save_negatives(&mut world.deps.storage, &alice, 1);
    assert_word(escape(&mut world), "positions");
    crate::state::save_negatives(&mut world.deps.storage, &alice, 0);
    escape(&mut world).unwrap();
    assert_eq!(world.balance(alice), (0, 10));
    assert_word(escape(&mut world), "amount");
}

// ---- tokens and the lock ---------------------------------------------------------------------------------------------

fn set_token_balance(world: &mut World, balance: u128) {
    let token = world.address("token");
    let vault = world.env.contract.address.clone();
    world.deps.querier.update_wasm(move |query| match query {
        WasmQuery::Smart { contract_addr, msg } if *contract_addr == token.as_str() => {
            let text = String::from_utf8(msg.to_vec()).unwrap();
            assert_eq!(text, format!(r#"{{"balance":{{"address":"{vault}"}}}}"#));
            let answer = format!(r#"{{"balance":"{balance}"}}"#);
            SystemResult::Ok(ContractResult::Ok(Binary::from(answer.into_bytes())))
        }
        _ => SystemResult::Ok(ContractResult::Err("no such token".into())),
    });
}

fn answer(world: &mut World, id: u64) -> Result<Response> {
    #[allow(deprecated)] // the field must be there
    let result = SubMsgResult::Ok(SubMsgResponse { events: vec![], data: None, msg_responses: vec![] });
    let msg = Reply { id, payload: Binary::default(), gas_used: 0, result };
    crate::reply(world.deps.as_mut(), world.env.clone(), msg)
}

fn deposit_token(world: &mut World, amount: u128) -> Result<Response> {
    let (asset, beneficiary) = (Hex(world.token()), Hex(world.account("alice")));
    world.call("alice", ExecuteMsg::Deposit { asset, amount: amount.into(), beneficiary })
}

#[test]
fn a_token_deposit_credits_what_arrived() {
    for (before, after, expected) in [
        (0u128, 90u128, Ok(90u128)),
        (50, 150, Ok(100)),
        (50, 50, Err("amount")),
        (50, 49, Err("amount")),
        (0, M96 + 1, Err("amount")),
    ] {
        let mut world = World::new();
        set_token_balance(&mut world, before);
        let response = deposit_token(&mut world, 100).unwrap();
        assert!(get_values(&response.events, "optsettle_out").is_empty());
        let [sub] = response.messages.as_slice() else { panic!("one message") };
        let CosmosMsg::Wasm(WasmMsg::Execute { contract_addr, msg, funds }) = &sub.msg else { panic!("a call") };
        assert_eq!((contract_addr.as_str(), funds.len()), (world.address("token").as_str(), 0));
        let text = format!(
            r#"{{"transfer_from":{{"owner":"{}","recipient":"{}","amount":"100"}}}}"#,
            world.address("alice"),
            world.env.contract.address
        );
        assert_eq!(*msg, Binary::from(text.into_bytes()));
        set_token_balance(&mut world, after);
        let result = answer(&mut world, REPLY_DEPOSIT);
        assert_eq!(result.as_ref().map_err(|e| e.word).err(), expected.err().as_ref().copied());
        if let Ok(amount) = expected {
            let value = get_values(&result.unwrap().events, "optsettle_out").remove(0);
            assert_eq!(value[3 * 32..], word_of(amount));
            let asset = Hex(world.token());
            let account = Hex(world.account("alice"));
            let b: BalanceAnswer = world.query(QueryMsg::Balance { account, asset });
            assert_eq!(b.free.u128(), amount);
        }
    }
}

#[test]
fn nothing_enters_while_a_token_or_the_bank_is_called() {
    let mut world = World::new();
    world.deposit("alice", 10);
    let id = request(&mut world, "alice", 10, false).unwrap();
    let alice = world.account("alice");
    pay_out(&mut world, &[(id, alice)]);
    set_token_balance(&mut world, 0);
    for locker in 0..2 {
        if locker == 0 {
            deposit_token(&mut world, 5).unwrap();
        } else {
            let response = world
                .call("anyone", ExecuteMsg::Claim { account: Hex(alice), asset: Hex(compute_denom_asset(COIN)) })
                .unwrap();
            let payment = BankMsg::Send {
                to_address: world.address("alice").into_string(),
                amount: vec![Coin::new(10u128, COIN)],
            };
            assert_eq!(response.messages[0].msg, payment.into());
        }
        let locked = world.dump();
        let (asset, account) = (Hex(world.coin()), Hex(alice));
        let definition = world.make_definition();
        let packet = world.make_packet(encode_body(&Body::Unpause {}));
        let signatures = world.certify(&packet);
        let calls = vec![
            ExecuteMsg::Deposit { asset, amount: 1u128.into(), beneficiary: account },
            ExecuteMsg::Link { portfolio: asset, valid_until: 0, signature: vec![0; 65].into() },
            ExecuteMsg::ListSeries { definition },
            ExecuteMsg::RegisterDenom { denom: "other".into() },
            ExecuteMsg::Cancel { offer: 1 },
            ExecuteMsg::Take { offer: 1, quantity: 1u128.into(), nonce: 0, for_house: false },
            ExecuteMsg::RequestWithdrawal { asset, amount: 1u128.into(), for_house: false },
            ExecuteMsg::Claim { account, asset },
            ExecuteMsg::Escape { asset },
            ExecuteMsg::Pause { signature: vec![0; 65].into() },
            ExecuteMsg::Recv { packet, signatures },
        ];
        for call in calls {
            assert_word(world.call("alice", call), "locked");
        }
        assert_eq!(world.dump(), locked);
        if locker == 0 {
            // an answer of another kind does not open the lock
            let mut other = World::new();
            other.deps.storage = MockStorage::default();
            for (key, value) in &locked {
                other.deps.storage.set(key, value);
            }
            assert_word(answer(&mut other, REPLY_CLAIM), "reply");
            set_token_balance(&mut world, 5);
            answer(&mut world, REPLY_DEPOSIT).unwrap();
        } else {
            assert!(answer(&mut world, REPLY_CLAIM).unwrap().events.is_empty());
        }
        assert!(world.call("alice", ExecuteMsg::RegisterDenom { denom: format!("coin{locker}") }).is_ok());
    }
    assert_word(answer(&mut world, REPLY_CLAIM), "reply");
    assert_word(answer(&mut world, REPLY_DEPOSIT), "reply");
}

#[test]
fn a_coin_deposit_brings_exactly_its_coin_and_nothing_else_brings_any() {
    let mut world = World::new();
    let (asset, account) = (Hex(world.coin()), Hex(world.account("alice")));
    let deposit = || ExecuteMsg::Deposit { asset, amount: 5u128.into(), beneficiary: account };
    let (five, other) = (Coin::new(5u128, COIN), Coin::new(5u128, "other"));
    for funds in [vec![], vec![other.clone()], vec![Coin::new(4u128, COIN)], vec![other, five.clone()]] {
        assert_word(world.call_with("alice", deposit(), &funds), "funds");
    }
    world.call_with("alice", deposit(), std::slice::from_ref(&five)).unwrap();
    assert_word(world.call_with("alice", ExecuteMsg::Escape { asset }, std::slice::from_ref(&five)), "funds");
    set_token_balance(&mut world, 0);
    let token = Hex(world.token());
    let pull = ExecuteMsg::Deposit { asset: token, amount: 5u128.into(), beneficiary: account };
    assert_word(world.call_with("alice", pull, &[five]), "funds");
}

#[test]
fn a_denom_is_registered_once_and_never_under_a_name_of_the_clearing() {
    let mut world = World::new();
    let register = |denom: &str| ExecuteMsg::RegisterDenom { denom: denom.into() };
    for denom in [HOUSE_NAME, INSURANCE_NAME, "", &"x".repeat(129)] {
        assert_word(world.call("anyone", register(denom)), "denom");
    }
    assert_word(world.call("anyone", register(COIN)), "exists");
    let response = world.call("anyone", register("uatom")).unwrap();
    assert_eq!(response.data.unwrap(), to_json_binary(&Hex(compute_denom_asset("uatom"))).unwrap());
    assert!(response.events.is_empty());
}

#[test]
fn the_clearings_accounts_take_deposits_and_claim_nothing() {
    let mut world = World::new();
    world.deposit_for("alice", INSURANCE, 5);
    let asset = Hex(world.coin());
    for account in [HOUSE, INSURANCE, [0; 32]] {
        assert_word(world.call("anyone", ExecuteMsg::Claim { account: Hex(account), asset }), "account");
    }
    let msg = ExecuteMsg::Deposit { asset, amount: 5u128.into(), beneficiary: Hex([0; 32]) };
    assert_word(world.call_with("alice", msg, &[Coin::new(5u128, COIN)]), "account");
}

#[test]
fn a_balance_never_reaches_2_to_the_96() {
    let mut world = World::new();
    world.deposit("alice", M96);
    let asset = Hex(world.coin());
    let beneficiary = Hex(world.account("alice"));
    let msg = |amount: u128| ExecuteMsg::Deposit { asset, amount: amount.into(), beneficiary };
    assert_word(world.call_with("alice", msg(1), &[Coin::new(1u128, COIN)]), "overflow");
    assert_word(world.call_with("alice", msg(M96 + 1), &[Coin::new(M96 + 1, COIN)]), "amount");
    assert_word(world.call_with("alice", msg(0), &[]), "amount");
}
