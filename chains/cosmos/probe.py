"""Questions of a person to single endpoints of one vault's chain: for `relayer check --live` and `relayer pause`, never for facts."""

from __future__ import annotations

from hashlib import sha256

from cosmpy.protos.cosmos.bank.v1beta1.query_pb2 import QueryBalanceRequest, QueryBalanceResponse
from cosmpy.protos.cosmwasm.wasm.v1.query_pb2 import (
    QueryCodeRequest,
    QueryCodeResponse,
    QueryContractInfoRequest,
)
from google.protobuf.message import DecodeError

from chains.base import Coin, Probe, SignedTx, VaultControl
from chains.cosmos.client import CosmosClient
from chains.cosmos.fees import GasPrice
from chains.cosmos.protobuf import Field, Kind, decode_message
from chains.cosmos.reader import CosmosReader
from chains.cosmos.submitter import CosmosSubmitter
from chains.cosmos.types import NANOSECONDS
from chains.cosmos.vault_json import make_pause, parse_control, parse_delay, parse_vault_id
from chains.cosmos.verifier import CosmosVerifier
from contracts.cosmos import get_wasm
from messages.errors import Rejected, Unavailable

BALANCE_PATH = "/cosmos.bank.v1beta1.Query/Balance"
CODE_PATH = "/cosmwasm.wasm.v1.Query/Code"
CONTRACT_PATH = "/cosmwasm.wasm.v1.Query/ContractInfo"
LOW_BALANCE_GAS = 100 * 1_000_000
"""Gas that an account should be able to pay for: about a hundred packets."""
MAX_AMOUNT_DIGITS = 78


class CosmosProbe(Probe):
    """One vault over its endpoints. ``submitter`` where the configuration names a key that pays."""

    header_door = "headers"

    def __init__(
        self, client: CosmosClient, reader: CosmosReader, price: GasPrice | None, submitter: CosmosSubmitter | None
    ) -> None:
        self._client = client
        self._reader = reader
        self._rules = client.rules
        self._price = price
        self.submitter: CosmosSubmitter | None = submitter

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the endpoints."""
        return self._client.sources

    @property
    def vault_text(self) -> str:
        """The contract's bech32 address."""
        return self._rules.vault_address

    @property
    def coin(self) -> Coin:
        """The denomination of the gas price, in its base units."""
        price = self._get_price()
        return Coin(price.denom, 0, price.get_fee(LOW_BALANCE_GAS))

    def _get_price(self) -> GasPrice:
        if self._price is None:
            raise Rejected("gas_price does not say what fees are paid in", reason="no_gas_price")
        return self._price

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()
        await self._reader.close()

    async def verify_chain_id(self, source: str) -> None:
        """See `Probe.verify_chain_id`."""
        await self._client.get_status(source)

    async def get_newest(self, source: str) -> tuple[int, int]:
        """(height, unix seconds) of the newest block."""
        status = await self._client.get_status(source)
        return status.height, status.time_ns // NANOSECONDS

    async def verify_vault(self, source: str, delay_s: int) -> str:
        """Compare the contract's code with the built one, ask that nobody may change it, and what it was created with."""
        request = QueryContractInfoRequest(address=self.vault_text).SerializeToString()
        answer = await self._client.query(source, CONTRACT_PATH, request)
        if answer.code and "no such contract" in answer.log:
            raise Rejected("there is no contract at the vault's address", reason="no_code", source=source)
        if answer.code:
            raise Unavailable(f"the endpoint knows no contracts: {answer.log}", reason="no_state", source=source)
        code_id, admin = _parse_contract_info(answer.value)
        code = await self._client.query(source, CODE_PATH, QueryCodeRequest(code_id=code_id).SerializeToString())
        try:
            checksum = b"" if code.code else QueryCodeResponse.FromString(code.value).code_info.data_hash
        except DecodeError as error:
            raise Rejected("not the answer of a wasm module", reason="malformed", source=source) from error
        if checksum != sha256(get_wasm("vault")).digest():
            raise Rejected(
                "another contract is there, not the built vault", got=checksum, reason="wrong_code", source=source
            )
        if admin:
            raise Rejected(
                "the contract has an admin who may replace its code", got=admin, reason="wrong_code", source=source
            )
        found = await self._client.query_vault(source, {"vault": {}})
        if (parse_vault_id(found), parse_delay(found)) != (self._rules.vault_id, delay_s):
            raise Rejected(
                "the built vault, created with another vault id or delay than the parameters say",
                got=(parse_vault_id(found).hex(), parse_delay(found)),
                expected=(self._rules.vault_id.hex(), delay_s),
                reason="wrong_immutables",
                source=source,
            )
        return f"the built vault (code {code_id}, no admin)"

    async def get_control(self, source: str) -> VaultControl:
        """Operators, threshold, epoch and pause as the vault itself answers."""
        found = parse_control(await self._client.query_vault(source, {"control": {}}))
        return VaultControl(
            found.operators, found.threshold, found.epoch, found.paused, found.pending_at, found.unpause_at
        )

    async def get_balance(self, source: str, account: str) -> int:
        """Base units of the fee denomination that an account (bech32) has."""
        request = QueryBalanceRequest(address=account, denom=self._get_price().denom).SerializeToString()
        answer = await self._client.query(source, BALANCE_PATH, request)
        if answer.code:
            raise Unavailable(f"the endpoint tells no balance: {answer.log}", reason="no_state", source=source)
        try:
            amount = QueryBalanceResponse.FromString(answer.value).balance.amount
        except DecodeError as error:
            raise Rejected("not a balance", reason="malformed", source=source) from error
        if not amount.isascii() or not amount.isdecimal() or len(amount) > MAX_AMOUNT_DIGITS:
            raise Rejected("not an amount", got=amount[:100], reason="malformed", source=source)
        return int(amount)

    async def get_finality_time(self, source: str) -> int:
        """Unix seconds of the newest block: what is committed is final."""
        return (await self.get_newest(source))[1]

    async def get_checkpoint_time(self, source: str, now: int) -> int:
        """See `Probe.get_checkpoint_time`."""
        verifier = CosmosVerifier(self._rules)
        try:
            claimed = await self._reader.bootstrap(source)
        except Unavailable as error:
            if error.reason != "no_block":
                raise
            raise Unavailable(error.what, got=error.got, reason="not_found", source=source) from error
        return verifier.get_point(verifier.verify_bootstrap(claimed, now)).time

    async def prepare_pause(self, signature: bytes) -> SignedTx:
        """See `Probe.prepare_pause`."""
        if self.submitter is None:
            raise Rejected(
                f"no key pays on {self._rules.chain}: submit_key in the configuration names one", reason="no_submit_key"
            )
        return await self.submitter.prepare_call(make_pause(signature))


def _parse_contract_info(answer: bytes) -> tuple[int, str]:
    """(code id, admin) in an answer to ContractInfo; Rejected ("bad_protobuf"). By hand: versions of wasmd disagree about fields 7 and 8."""
    found = decode_message(answer, {1: Field("address", Kind.TEXT), 2: Field("info", Kind.MESSAGE)})
    rest = {number: Field(f"field {number}", Kind.MESSAGE) for number in range(4, 9)}
    fields = {1: Field("code_id", Kind.UNSIGNED), 2: Field("creator", Kind.TEXT), 3: Field("admin", Kind.TEXT), **rest}
    info = decode_message(found["info"] or b"", fields)
    return info["code_id"], info["admin"]
