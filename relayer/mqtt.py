"""Gossip over an MQTT 5 broker, behind the two methods of `relayer.gossip.Gossip`. The broker is untrusted (incidents.md 5).

A message is worth its envelope's signature and nothing more, so this file only moves bytes and bounds what they cost: each
operator publishes below its own name, which is its address, and everybody listens to exactly the topics of the committee:

    <root>/<publisher: 40 hex digits>/<committee>/<kind>

Nothing is retained, no session outlives its connection, and nothing is promised: after every connect `on_connect` is called,
so that the node says everything unfinished again from its store. Who may write below which name is the broker's ACL
(`configs/mosquitto`); the limits per publisher here rest on it, safety does not (docs/decisions/0030).
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiomqtt
from paho.mqtt.client import Client as Paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from messages.errors import Rejected, Unavailable
from relayer.gossip import Handler
from relayer.log import make_logger
from relayer.mailbox import Mailbox
from relayer.rules.quorum import MAX_PROPOSAL_ENVELOPE_BYTES

PROTOCOL_ROOM_BYTES = 4096
"""What topic, properties and headers may add to a message in its MQTT packet."""

MAX_UNCONFIRMED = 8
"""Publications that wait for their acknowledgement at the same time."""

BURST_S = 5
"""Seconds of its rate that a publisher may use at once: repeating after a reconnect comes in bursts."""

DRAIN_S = 2.0
"""How long a clean stop waits for what is still to be sent."""
CANCEL_AGAIN_S = 0.5

PUBLISH_TIMEOUT_S = 30.0
CONFIRM_EVERY_S = 1.0
"""How often the age of what is not acknowledged is looked at."""
MAX_PASSWORD_BYTES = 1024
MAX_OPERATORS = 20
SAFE_BROKER = (2, 0, 21)
"""mosquitto below this has known holes (incidents.md 5)."""

_ROOT = re.compile(r"[A-Za-z0-9_-]{1,32}(/[A-Za-z0-9_-]{1,32}){0,3}")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
"""A vote is small and somebody waits for it: it does not wait for the acknowledgement of what was sent before."""
_QUIET = logging.getLogger("relayer.mqtt")  # the client library's own words; ours go to the structured log
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


@dataclass(frozen=True)
class MqttSettings:
    """How to reach the broker. Secrets only as files; sizes in bytes; rates are per publisher.

    Without ``ca_file`` the connection is plain TCP, which only a broker on this machine may have. With ``cert_file`` and
    ``key_file`` the node shows its certificate (mTLS); its common name must be the operator's address in 40 hex digits.
    """

    host: str
    port: int
    operator: bytes  # 20 bytes; client id, user name and publisher level are made of it
    operators: tuple[bytes, ...]  # the committee at the start; `MqttGossip.set_operators` follows a rotation
    root: str = "optsettle"
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = 30
    connect_timeout_s: float = 10.0
    backoff_min_s: float = 0.5
    backoff_max_s: float = 15.0
    max_message_bytes: int = MAX_PROPOSAL_ENVELOPE_BYTES
    max_outgoing: int = 1024
    max_outgoing_bytes: int = 64 * 1024 * 1024
    max_messages_per_s: int = 200
    max_bytes_per_s: int = 8 * 1024 * 1024


def verify_settings(settings: MqttSettings) -> None:
    """Check what can be checked without a connection; file contents are read at each connect.

    Raises:
        Rejected: ``broker_settings``, ``plain_broker`` (no TLS to another machine), ``file_mode`` (others can read a secret).
    """
    s = settings
    for is_good, what, got in (
        (bool(s.host) and s.host.isprintable() and " " not in s.host, "the broker's host", s.host),
        (1 <= s.port <= 65535, "the broker's port (1 to 65535)", s.port),
        (len(s.operator) == 20, "the operator's address (20 bytes)", s.operator),
        (
            0 < len(s.operators) <= MAX_OPERATORS,
            f"the operators of the committee (1 to {MAX_OPERATORS})",
            len(s.operators),
        ),
        (all(len(o) == 20 for o in s.operators), "an operator's address (20 bytes)", s.operators),
        (_ROOT.fullmatch(s.root) is not None, "the topic root: up to four levels of letters, digits, _ and -", s.root),
        ((s.cert_file is None) == (s.key_file is None), "certificate and key come together", s.cert_file),
        (s.cert_file is None or s.ca_file is not None, "a certificate needs ca_file too", s.cert_file),
        (5 <= s.keepalive_s <= 600, "keepalive_s (5 to 600)", s.keepalive_s),
        (0 < s.connect_timeout_s <= 60, "connect_timeout_s (up to 60)", s.connect_timeout_s),
        (0 < s.backoff_min_s <= s.backoff_max_s <= 600, "back-off (0 < min <= max <= 600)", s.backoff_min_s),
        (0 < s.max_message_bytes <= 64 * 1024 * 1024, "max_message_bytes", s.max_message_bytes),
        (s.max_outgoing > 0 and s.max_message_bytes <= s.max_outgoing_bytes, "room for outgoing", s.max_outgoing),
        (s.max_messages_per_s > 0 and s.max_bytes_per_s > 0, "the rates per publisher", s.max_messages_per_s),
    ):
        if not is_good:
            raise Rejected(f"[gossip] is wrong: {what}", got=got, reason="broker_settings")
    if s.ca_file is None and s.host not in _LOOPBACK:
        raise Rejected(
            "a broker on another machine is reached by TLS only: give ca_file",
            got=s.host,
            expected="127.0.0.1, ::1 or localhost",
            reason="plain_broker",
        )
    for path in (s.ca_file, s.cert_file, s.key_file, s.password_file):
        if path is not None and not path.is_file():
            raise Rejected(f"[gossip] names a file that is not there: {path}", reason="broker_settings")
    for secret in (s.password_file, s.key_file):
        if secret is not None and secret.stat().st_mode & 0o077:
            raise Rejected(
                f"{secret} can be read by others: chmod 600 it",
                got=oct(secret.stat().st_mode & 0o777),
                expected="0o600",
                reason="file_mode",
            )


class MqttGossip:
    """One operator's connection. `run` is the task that keeps it; `publish` and `subscribe` may be called at any time.

    Args:
        settings: see `MqttSettings`.
        log: from `relayer.log.make_logger`.

    ``on_connect`` is called after each connect, when the subscriptions are in place. ``counts`` counts messages by what became
    of them since the process started: sent, failed, delivered, retained, oversize, foreign, rate, outgoing (dropped unsent);
    and connects.

    Raises:
        Rejected: as `verify_settings`.
    """

    def __init__(self, settings: MqttSettings, log: Any = None) -> None:
        verify_settings(settings)
        self.settings = settings
        self.on_connect: Callable[[], None] | None = None
        self.is_connected = False
        self.last_error = "never connected"
        self.topics: frozenset[str] = frozenset()
        """Subscriptions that the broker has confirmed."""
        self._counts: Counter[str] = Counter()
        self._log = (log or make_logger()).bind(part="mqtt")
        self._operators = frozenset(settings.operators)
        self._handlers: dict[str, list[Handler]] = {}  # by topic without its first level: committee/kind
        self._active: dict[str, str] = {}  # wire topic -> committee/kind
        self._outgoing = Mailbox(settings.max_outgoing, settings.max_outgoing_bytes)
        self._carrier: Paho | None = None  # of the connection that stands, once it may send
        self._unconfirmed: dict[int, float] = {}  # message id -> loop time at which it was handed over
        self._send_failure: OSError | None = None
        self._outgoing_event = asyncio.Event()
        self._topics_event = asyncio.Event()
        self._stop = asyncio.Event()
        self._budgets: dict[str, _Budget] = {}

    # ---- the seam

    async def publish(self, topic: str, data: bytes) -> None:
        """Hand a message to the socket at once, or queue it; the kind that fills the queue most loses its oldest where there is no room.

        At once, because what follows a statement is most often long work of this process, and the others wait for the statement.

        Raises:
            Rejected: larger than the carrier takes; reason ``size``.
        """
        if len(data) > self.settings.max_message_bytes:
            raise Rejected(
                "message too large for the carrier",
                got=len(data),
                expected=self.settings.max_message_bytes,
                reason="size",
            )
        self._outgoing.put(topic, data)
        self._send_queued()

    def subscribe(self, topic: str, handler: Handler) -> Callable[[], None]:
        """Call ``handler(wire topic, data)`` for what other operators of the committee publish; returns the way to end it.

        The handler gets the whole wire topic, publisher included: a node keeps the mail of each publisher apart.
        """
        handlers = self._handlers.setdefault(_strip(topic), [])
        handlers.append(handler)
        self._topics_event.set()

        def end() -> None:
            if handler in handlers:
                handlers.remove(handler)
            self._topics_event.set()

        return end

    # ---- state

    @property
    def counts(self) -> Mapping[str, int]:
        """Messages by what became of them; see the class."""
        return {**self._counts, "outgoing": self._outgoing.dropped}

    @property
    def queued(self) -> int:
        """Messages that wait to be sent."""
        return len(self._outgoing)

    def set_operators(self, operators: Collection[bytes]) -> None:
        """Listen to another set of publishers from now on (a rotation)."""
        if frozenset(operators) != self._operators:
            self._operators = frozenset(operators)
            self._topics_event.set()

    def stop(self) -> None:
        """Ask `run` to send what it can within moments, to disconnect and to end."""
        self._stop.set()

    # ---- running

    async def run(self) -> None:
        """Keep a connection until `stop`: reconnect with bounded back-off, subscribe again, send, receive.

        Raises:
            Rejected: before the first connection, a file of the settings cannot be used (``broker_settings``, ``file_mode``).
        """
        backoff_s = self.settings.backoff_min_s
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            began_s = loop.time()
            try:
                client = await make_client(self.settings, receive=self._receive)
                async with client:
                    await self._converse(client)
            except (aiomqtt.MqttError, Unavailable) as error:
                self._note_loss(str(error))
            except Rejected as error:
                # Wrong from the start is told at the start; a file that is being renewed is tried again.
                if not self._counts["connects"]:
                    raise
                self._note_loss(str(error))
            if self._stop.is_set():
                break
            if loop.time() - began_s > self.settings.backoff_max_s:
                # Only a connection that lasted ends the back-off: one that always breaks at once must not become a storm.
                backoff_s = self.settings.backoff_min_s
            # Jitter, so that a restarted broker does not meet the whole committee in one instant.
            pause_s = backoff_s * random.uniform(0.5, 1.0)  # noqa: S311  no secret
            backoff_s = min(self.settings.backoff_max_s, backoff_s * 2)
            await _wait_for_event(self._stop, pause_s)

    def _note_loss(self, error: str) -> None:
        if self.is_connected or error != self.last_error:
            self._log.warning("broker lost", host=self.settings.host, port=self.settings.port, error=error)
        self.is_connected = False
        self.last_error = error

    async def _converse(self, client: aiomqtt.Client) -> None:
        """Everything that happens within one connection; ends with the connection or after `stop`."""
        self._active, self.topics = {}, frozenset()
        await self._update_subscriptions(client)
        self.is_connected = True
        self.last_error = ""
        self._counts["connects"] += 1
        self._log.info("broker connected", host=self.settings.host, topics=len(self.topics))
        if self.on_connect is not None:
            self.on_connect()
        tasks = [asyncio.create_task(_follow_connection(client)), asyncio.create_task(self._follow_topics(client))]
        tasks.append(asyncio.create_task(self._send(client._client)))  # noqa: SLF001  see `Paho`
        stopper = asyncio.create_task(self._drain())
        try:
            done, _ = await asyncio.wait([*tasks, stopper], return_when=asyncio.FIRST_COMPLETED)
            if stopper not in done:
                # The sender may notice a loss first; the follower knows the reason and takes it from the library.
                await asyncio.wait(tasks[:1], timeout=1.0)
        finally:
            await _end_tasks([*tasks, stopper])
        for task in done:
            task.result()
        self.is_connected = False

    async def _drain(self) -> None:
        await self._stop.wait()
        deadline = asyncio.get_running_loop().time() + DRAIN_S
        while (self._outgoing or self._unconfirmed) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110  two conditions, for two seconds at most
            await asyncio.sleep(0.02)

    # ---- sending

    async def _send(self, carrier: Paho) -> None:
        """Let messages leave while the connection stands: what waited for it, and what had to wait for an acknowledgement."""
        loop = asyncio.get_running_loop()
        note = carrier.on_publish

        def confirm(client: Paho, userdata: Any, mid: int, *rest: Any) -> None:
            if note is not None:
                note(client, userdata, mid, *rest)
            if self._unconfirmed.pop(mid, None) is not None:
                self._counts["sent"] += 1
                self._outgoing_event.set()

        def write() -> None:
            try:
                carrier.loop_write()
            except OSError as error:
                if self._carrier is carrier:  # a connection that is over says nothing of the next one
                    self._fail(error)

        carrier.on_publish = confirm
        # The library asks the event loop for this a turn later, because it may connect in another thread. What is written at once would have taken
        # the request back before it was made, and the loop would call for a writer with nothing to write for ever.
        carrier.on_socket_register_write = lambda _, __, sock: loop.add_writer(sock.fileno(), write)
        self._carrier, self._send_failure = carrier, None
        try:
            while True:
                self._outgoing_event.clear()
                self._send_queued()
                if self._send_failure is not None:
                    raise Unavailable(f"the connection broke: {self._send_failure}", reason="broker")
                oldest = min(self._unconfirmed.values(), default=loop.time())
                if loop.time() - oldest > PUBLISH_TIMEOUT_S:
                    raise Unavailable("the broker acknowledges nothing", reason="broker")
                await _wait_for_event(self._outgoing_event, CONFIRM_EVERY_S)
        finally:
            # Lost with its connection: what matters is said again after the next connect.
            self._carrier = None
            self._counts["failed"] += len(self._unconfirmed)
            self._unconfirmed.clear()

    def _send_queued(self) -> None:
        """Hand to the socket what may leave now. A failure is the connection's: its task ends with it."""
        carrier = self._carrier
        if carrier is None:
            return
        try:
            while self._outgoing and len(self._unconfirmed) < MAX_UNCONFIRMED and self._send_failure is None:
                topic, data = self._outgoing.take()
                told = carrier.publish(self._get_wire_topic(self.settings.operator, _strip(topic)), data, qos=1)
                if told.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    self._counts["failed"] += 1
                    raise ConnectionError(told.rc.name)
                self._unconfirmed[told.mid] = asyncio.get_running_loop().time()
                # else it would wait until the event loop looks at the socket again, behind everything that is ready to run
                carrier.loop_write()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._send_failure = error
        self._outgoing_event.set()

    def _get_wire_topic(self, publisher: bytes, suffix: str) -> str:
        return f"{self.settings.root}/{publisher.hex()}/{suffix}"

    # ---- receiving

    async def _follow_topics(self, client: aiomqtt.Client) -> None:
        while True:
            await self._topics_event.wait()
            await self._update_subscriptions(client)

    async def _update_subscriptions(self, client: aiomqtt.Client) -> None:
        """Listen to exactly the topics of the other operators that have a handler here."""
        self._topics_event.clear()
        suffixes = [suffix for suffix, handlers in self._handlers.items() if handlers]
        others = self._operators - {self.settings.operator}
        wanted = {self._get_wire_topic(o, suffix): suffix for o in sorted(others) for suffix in suffixes}
        gone, new = sorted(self._active.keys() - wanted.keys()), sorted(wanted.keys() - self._active.keys())
        self._active = wanted
        self._budgets = {publisher: b for publisher, b in self._budgets.items() if bytes.fromhex(publisher) in others}
        if gone:
            await client.unsubscribe(gone)
        if new:
            # Retained messages are neither asked for nor taken, and a live one still shows that it was meant to be retained.
            options = SubscribeOptions(
                qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND
            )
            codes = await client.subscribe([(topic, options) for topic in new])
            if any(getattr(code, "is_failure", False) for code in codes):
                raise Unavailable("the broker refuses a subscription: look at its ACL", reason="subscription_refused")
        self.topics = frozenset(wanted)

    def _receive(self, message: aiomqtt.Message) -> None:
        """Judge and hand over one message, at once: nothing may queue before it was judged."""
        topic, payload = message.topic.value, message.payload
        verdict = self._judge(topic, payload, is_retained=message.retain, now_s=asyncio.get_running_loop().time())
        self._counts[verdict] += 1
        if verdict == "delivered":
            for handler in list(self._handlers.get(self._active[topic], ())):
                handler(topic, bytes(payload))

    def _judge(self, topic: str, payload: bytes, *, is_retained: bool, now_s: float) -> str:
        """What becomes of a message, by what costs nothing to look at; nothing is parsed or verified here."""
        if topic not in self._active:
            return "foreign"
        if is_retained:
            return "retained"
        if len(payload) > self.settings.max_message_bytes:
            return "oversize"
        publisher = topic[len(self.settings.root) + 1 :].partition("/")[0]
        budget = self._budgets.get(publisher)
        if budget is None:
            s = self.settings
            budget = self._budgets[publisher] = _Budget(s.max_messages_per_s, s.max_bytes_per_s, now_s)
        return "delivered" if budget.take(len(payload), now_s) else "rate"


class _Door(asyncio.Queue[aiomqtt.Message]):
    """Stands where the client library has its queue: that one is first come, first served, and a flood would fill it.

    A message is received in the moment it is read from the socket. An error of the receiver is ours, not the broker's: it
    comes out of `get`, and so of `MqttGossip.run`.
    """

    def __init__(self, receive: Callable[[aiomqtt.Message], None]) -> None:
        super().__init__()
        self._receive = receive
        self._failure: asyncio.Future[aiomqtt.Message] = asyncio.get_running_loop().create_future()

    def put_nowait(self, item: aiomqtt.Message) -> None:
        """Receive."""
        try:
            self._receive(item)
        except Exception as error:  # noqa: BLE001  not handled here: it leaves through get
            if not self._failure.done():
                self._failure.set_exception(error)

    async def get(self) -> aiomqtt.Message:
        """Never returns; raises what the receiver raised."""
        return await asyncio.shield(self._failure)


async def _follow_connection(client: aiomqtt.Client) -> None:
    """End with the connection; messages themselves come through `_Door`."""
    async for _ in client.messages:
        raise AssertionError("the door hands out no messages")


class _Budget:
    """Token bucket of one publisher, in messages and in bytes. A single large message may overdraw the bytes once."""

    def __init__(self, messages_per_s: int, bytes_per_s: int, now_s: float) -> None:
        self._rates = (messages_per_s, bytes_per_s)
        self._left = [float(rate * BURST_S) for rate in self._rates]
        self._at_s = now_s

    def take(self, size: int, now_s: float) -> bool:
        for i, rate in enumerate(self._rates):
            self._left[i] = min(float(rate * BURST_S), self._left[i] + rate * (now_s - self._at_s))
        self._at_s = now_s
        if min(self._left) < 1:
            return False
        self._left[0] -= 1
        self._left[1] -= size
        return True


# ---- connecting ---------------------------------------------------------------------------------------------------------


async def make_client(
    settings: MqttSettings,
    *,
    receive: Callable[[aiomqtt.Message], None] | None = None,
    is_anonymous: bool = False,
) -> aiomqtt.Client:
    """A client that is not connected yet; password and certificates are read now, so that they can be renewed.

    ``receive`` is called with each message as it is read; without it messages wait in the client.

    Raises:
        Rejected: a file cannot be used; reason ``broker_settings`` or ``file_mode``.
    """
    context, password = await asyncio.to_thread(_read_files, settings)
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
    properties.MaximumPacketSize = settings.max_message_bytes + PROTOCOL_ROOM_BYTES
    properties.ReceiveMaximum = 64
    name = settings.operator.hex()
    door = None if receive is None else _Door(receive)
    client = aiomqtt.Client(
        settings.host,
        settings.port,
        identifier=f"optsettle-{name}" if not is_anonymous else f"optsettle-check-{name[:8]}",
        username=name if password is not None and not is_anonymous else None,
        password=password if not is_anonymous else None,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=True,
        keepalive=settings.keepalive_s,
        timeout=settings.connect_timeout_s,
        properties=properties,
        tls_context=context,
        max_queued_incoming_messages=1024,
        socket_options=_SOCKET_OPTIONS,
        queue_type=None if receive is None else cast("type[asyncio.Queue[aiomqtt.Message]]", lambda maxsize: door),  # noqa: ARG005  a factory
        logger=_QUIET,
    )
    # A topic that is none (a lying broker's) would otherwise leave its connection open and its reader in the event loop.
    client._client.suppress_exceptions = True  # noqa: SLF001  aiomqtt has no door to this option of its client
    return client


def _read_files(settings: MqttSettings) -> tuple[ssl.SSLContext | None, str | None]:
    verify_settings(settings)
    try:
        password = None
        if settings.password_file is not None:
            data = settings.password_file.read_bytes()[: MAX_PASSWORD_BYTES + 1].strip()
            if not 0 < len(data) <= MAX_PASSWORD_BYTES:
                raise Rejected(f"{settings.password_file} holds no password", reason="broker_settings")
            password = data.decode()
        if settings.ca_file is None:
            return None, password
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(settings.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if settings.cert_file is not None and settings.key_file is not None:
            context.load_cert_chain(str(settings.cert_file), str(settings.key_file))
    except (OSError, ValueError) as error:
        # Only the kind of error: its text could quote a file that holds a secret.
        raise Rejected(
            "a file of [gossip] cannot be used", got=type(error).__name__, reason="broker_settings"
        ) from None
    return context, password


async def _wait_for_event(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _end_tasks(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough: the library waits by `asyncio.wait_for`, which up to Python 3.11 loses a cancellation that comes together with the answer
    it waits for, and a sender would go on for ever.
    """
    waiting = [task for task in tasks if not task.done()]
    while waiting:
        for task in waiting:
            task.cancel()
        _, pending = await asyncio.wait(waiting, timeout=CANCEL_AGAIN_S)
        waiting = list(pending)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen: who ends the tasks decides what becomes of it


def _strip(topic: str) -> str:
    """A node's topic without its first level, which is the root's place on the wire."""
    return topic.partition("/")[2]


# ---- check --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BrokerFinding:
    """One thing `check_broker` found. level: error (gossip won't work), warning (the broker is open to misuse) or ok."""

    level: str
    reason: str
    text: str


async def check_broker(settings: MqttSettings, *, wait_s: float = 1.0) -> tuple[BrokerFinding, ...]:
    """Connect as this operator and see whether the broker does what docs/mqtt.md asks of it.

    Stop the node first: one client id is one connection.

    Raises:
        Rejected: as `verify_settings`.
    """
    findings: list[BrokerFinding] = []
    own = settings.operator.hex()
    other = next((o.hex() for o in settings.operators if o != settings.operator), "0" * 40)
    try:
        async with await make_client(settings) as client:
            for topic in (f"{settings.root}/{own}/check", f"{settings.root}/{other}/check", "$SYS/broker/version"):
                await client.subscribe(topic, qos=1)
            messages = [(f"{settings.root}/{publisher}/check", publisher.encode()) for publisher in (own, other)]
            findings += _judge_arrived(settings, own, other, await _send_and_collect(client, messages, wait_s))
            large = (f"{settings.root}/{own}/check", bytes(settings.max_message_bytes))
            if large not in await _send_and_collect(client, [large], 5 * wait_s):
                findings.append(_find("error", "packet_limit", f"a message of {len(large[1])} bytes does not arrive"))
    except aiomqtt.MqttError as error:
        findings.append(_find("error", "broker", f"the connection failed: {error}"))
        return tuple(findings)
    try:
        async with await make_client(settings, is_anonymous=True):
            findings.append(_find("warning", "anonymous", "the broker takes connections without a name: forbid it"))
    except aiomqtt.MqttError:
        findings.append(_find("ok", "anonymous", "connections without a name are refused"))
    return tuple(findings)


async def _send_and_collect(
    client: aiomqtt.Client, messages: list[tuple[str, bytes]], wait_s: float
) -> list[tuple[str, bytes]]:
    """Publish and return what arrives in the time, at most until all of the messages did; MqttError if the connection breaks."""
    arrived: list[tuple[str, bytes]] = []

    async def send() -> None:
        for topic, data in messages:
            await client.publish(topic, data, qos=1)

    async def read() -> None:
        async for message in client.messages:
            arrived.append((message.topic.value, message.payload))
            if set(messages) <= set(arrived):
                return

    # The reader is what notices a lost connection at once.
    tasks = [asyncio.create_task(read()), asyncio.create_task(send())]
    try:
        await asyncio.wait(tasks[:1], timeout=wait_s)
    finally:
        await _end_tasks(tasks)
    for result in (None if task.cancelled() else task.exception() for task in tasks):
        if isinstance(result, aiomqtt.MqttError):
            raise result
    return arrived


def _judge_arrived(
    settings: MqttSettings, own: str, other: str, arrived: list[tuple[str, bytes]]
) -> list[BrokerFinding]:
    topics = dict(arrived)
    findings = []
    if f"{settings.root}/{own}/check" in topics:
        findings.append(_find("ok", "publish", "what this operator says is carried"))
    else:
        findings.append(
            _find("error", "publish", "the broker carries nothing that this operator says: look at its ACL")
        )
    if f"{settings.root}/{other}/check" in topics:
        findings.append(_find("warning", "acl", "anybody can publish under another operator's name: set the ACL"))
    else:
        findings.append(_find("ok", "acl", "nobody can publish under another operator's name"))
    version = topics.get("$SYS/broker/version", b"").decode("latin-1")
    found = re.search(r"mosquitto version (\d+)\.(\d+)\.(\d+)", version)
    if found and tuple(map(int, found.groups())) < SAFE_BROKER:
        findings.append(_find("warning", "version", f"{version} has known holes: 2.0.21 or later"))
    return findings


def _find(level: str, reason: str, text: str) -> BrokerFinding:
    return BrokerFinding(level, reason, text)
