"""The blocking twin, for code without an event loop: views, Celery tasks, management commands. On redis-py.

It publishes what the layer's processes hear. It receives nothing, but for the answer to what it asks of a process.
"""

import itertools
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import redis
import redis.cluster
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from ...exceptions import ChannelFull, InvalidChannelLayerError, LayerRefused, LayerUnreachable, OutcomeUnknown
from ...seam import backend
from ..base import capacity_for, checked_capacities, require_channel_name, require_delay, require_group_name, type_of
from ..configured import after_commit
from ..history import History, Position, checked_histories, history_of
from ..serializers import Message, Serializer
from .address import Cluster, Endpoint, Sentinels, Target
from .history import append_arguments, append_keys, position_of
from .names import ANSWER, JOIN, LEAVE, MESSAGE, Letter, Native, read_letter, shard_of, write_letter
from .options import check_names, serializer_of, targets_of, wire_of
from .post import token_of
from .queue import put_arguments, put_keys
from .scripts import Script

APPEND, PUT = Script.from_file("history_append"), Script.from_file("queue_put")
NAMES = (  # of the options
    "hosts", "url", "prefix", "capacity", "channel_capacity", "symmetric_encryption_keys", "serializer_format",
    "serializer", "history", "wire", "timeout",
)  # fmt: skip
NO_RETRY = {"retry": Retry(NoBackoff(), 0), "retry_on_error": []}  # what was sent once must not be sent twice
NO_CLUSTER_RETRY: dict[str, Any] = {"retry": Retry(NoBackoff(), 0)}
if int(redis.__version__.partition(".")[0]) < 6:
    NO_CLUSTER_RETRY["cluster_error_retry_attempts"] = 0
FAILURES = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError)
NOTHING_SENT = (redis.sentinel.MasterNotFoundError, redis.exceptions.RedisClusterException)
LOOK_EVERY = 1.0  # seconds after which the sentinels are asked again whether their master is another


class SyncChannelLayer:
    """Sends to the channels and groups of :class:`RedisChannelLayer`, and blocks until Redis has taken it.

    It takes that layer's options, and must be given the same ones. No event loop is needed, and none is allowed: on the
    thread of a running loop every method raises RuntimeError, for it would stop the loop. Threads may share one. After
    ``fork()`` both processes may go on: each makes connections of its own. ``close()``, or the end of a ``with`` block,
    gives the connections back; it may be used again.

    ``timeout``: seconds for connecting and for each answer. Raises what the layer raises: :class:`LayerUnreachable`
    if Redis was not reached, :class:`OutcomeUnknown` if it was and did not answer, :class:`LayerRefused` for an error.
    """

    def __init__(
        self,
        hosts: object = None,
        prefix: str = "asgi",
        *,
        url: str | None = None,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        symmetric_encryption_keys: Iterable[str | bytes] | None = None,
        serializer_format: str | Serializer = "msgpack",
        serializer: Serializer | None = None,
        history: Mapping[str, History] | None = None,
        wire: Literal["native", "channels_redis.pubsub"] = "native",
        timeout: float = 5,
        expiry: float = 60,
        group_expiry: float = 86400,
        **unknown: Any,
    ) -> None:
        check_names(NAMES, unknown, type(self).__name__)
        self.histories = checked_histories(history)
        self.wire = wire_of(wire, prefix, history)
        self.serializer = serializer_of(serializer_format, symmetric_encryption_keys, serializer)
        self.timeout, self.expiry = timeout, expiry
        self.capacity, self.channel_capacity = capacity, checked_capacities(channel_capacity)
        self._pid, self._token, self._numbers = 0, "", itertools.count(1)
        self._clients = [_Client(target, timeout) for target in targets_of(hosts, url)]

    def __repr__(self) -> str:
        return f"<SyncChannelLayer on {', '.join(map(repr, self._clients))}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        for client in self._clients:
            client.close()

    def send(self, channel: str, message: Message, *, delay: float = 0) -> None:
        """Send to a channel: of a consumer anywhere, or a work queue; :class:`ChannelFull` if that is full."""
        refuse_loops()
        require_channel_name(channel)
        sealed = self._seal(message)
        native = isinstance(self.wire, Native)
        if native and "!" not in channel:
            self._enqueue(channel, sealed, delay)
        elif delay:
            raise InvalidChannelLayerError(
                f"send({channel!r}, delay=…): without an event loop only work queues take what is to come later"
            )
        elif native:
            self._letter(token_of(channel), Letter(MESSAGE, channel, sealed))
        else:
            self._client(channel).run("PUBLISH", channel, sealed)

    def _enqueue(self, channel: str, sealed: bytes, delay: float) -> None:
        assert isinstance(self.wire, Native)
        capacity = capacity_for(channel, self.channel_capacity, self.capacity)
        arguments = put_arguments(sealed, require_delay(delay), capacity)
        if not self._client(channel).script(PUT, put_keys(self.wire, channel), arguments):
            raise ChannelFull(channel, capacity)

    def group_send(
        self, group: str, message: Message, idempotency_key: str | None = None, *, on_commit: bool | str = False
    ) -> Position | None:
        """Send to every member of a group, in all processes; returns the position where the group has history.

        ``on_commit``: send once Django's transaction is committed (of the default database, or the one that is named);
        at once where there is none, and never if it is rolled back. Then None is returned, and an error is logged.
        """
        refuse_loops()
        require_group_name(group)
        sealed = self._seal(message)
        if on_commit:
            work = partial(self.group_send, group, self.serializer.decode(sealed), idempotency_key)
            after_commit(work, None if on_commit is True else on_commit)
            return None
        history = history_of(self.histories, group)
        if isinstance(self.wire, Native) and history is not None:
            client, channel = self._client(group), self.wire.events(group)
            keys = append_keys(self.wire, group, idempotency_key)
            arguments = append_arguments(sealed, history, channel, client.publish_command, idempotency_key)
            return position_of(client.script(APPEND, keys, arguments))
        if idempotency_key is not None:
            raise InvalidChannelLayerError(f"group_send({group!r}, idempotency_key=…): the group has no history")
        channel = self.wire.events(group)
        client = self._client(group if isinstance(self.wire, Native) else channel)
        client.run(client.publish_command, channel, self._framed(client, sealed))
        return None

    def group_add(self, group: str, channel: str) -> None:
        """Put a consumer's channel into a group; its process does it, and has done it when this returns."""
        self._ask(JOIN, group, channel)

    def group_discard(self, group: str, channel: str) -> None:
        """Take a consumer's channel out of a group."""
        self._ask(LEAVE, group, channel)

    def _ask(self, kind: str, group: str, channel: str) -> None:
        refuse_loops()
        require_group_name(group)
        require_channel_name(channel)
        if not isinstance(self.wire, Native) or "!" not in channel:
            raise InvalidChannelLayerError(f"{channel!r} is no channel whose process could be asked")
        token = secrets.token_hex(6)
        with self._client(token).listening(self.wire.inbox(token)) as listen:
            if not self._letter(token_of(channel), Letter(kind, channel, group=group, sender=token, number=1)):
                return  # its process has ended, and all memberships with it
            for frame in listen(time.monotonic() + self.timeout):
                letter = read_letter(frame)
                if letter.kind == ANSWER:
                    if letter.body:
                        raise LayerUnreachable(f"the channel {channel!r}", letter.body.decode(errors="replace"))
                    return
        raise LayerUnreachable(f"the channel {channel!r}", "its process has not answered in time")

    def _letter(self, token: str, letter: Letter) -> bool:
        assert isinstance(self.wire, Native)
        client = self._client(token)
        return bool(client.run(client.publish_command, self.wire.inbox(token), write_letter(letter)))

    def _framed(self, client: "_Client", sealed: bytes) -> bytes:
        if client.publish_command != "SPUBLISH" or not isinstance(self.wire, Native):
            return self.wire.event(sealed)
        if self._pid != os.getpid():  # after a fork, both would give out the same numbers
            self._pid, self._token, self._numbers = os.getpid(), secrets.token_hex(6), itertools.count(1)
        return self.wire.numbered(self._token, next(self._numbers), sealed)

    def _seal(self, message: Message) -> bytes:
        sealed = self.serializer.encode(message)
        type_of(message)
        return sealed

    def _client(self, name: str) -> "_Client":
        return self._clients[shard_of(name, len(self._clients))]


def refuse_loops() -> None:
    """Raise RuntimeError on the thread of a running event loop."""
    try:
        running = backend()
    except RuntimeError:
        return
    raise RuntimeError(
        f"SyncChannelLayer would stop the {running} loop that runs in this thread: await the channel layer itself, "
        "get_channel_layer(), or call this from a worker thread"
    )


class _Client:
    """redis-py's client for one target, made when it is first needed; its errors made ours."""

    def __init__(self, target: Target, timeout: float) -> None:
        self._target, self._timeout = target, timeout
        self._made: Any = None
        self._looked = 0.0
        self.publish_command = "SPUBLISH" if isinstance(target, Cluster) else "PUBLISH"

    def __repr__(self) -> str:
        return self._target.label

    @property
    def _client(self) -> Any:
        if self._made is None:
            try:
                with self._translated():
                    self._made = _connect(self._target, self._timeout)
            except OutcomeUnknown as error:
                raise LayerUnreachable(error.where, error.problem) from error
        elif isinstance(self._target, Sentinels) and time.monotonic() > self._looked + LOOK_EVERY:
            # A master that was replaced may go on for a while, and a replica takes what is published: neither tells us.
            self._looked = time.monotonic()
            with suppress(*FAILURES):  # whoever cannot be asked has nothing new
                self._made.connection_pool.get_master_address()  # which leaves the connections to another one
        return self._made

    def close(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.close()

    def run(self, command: str, channel: str, payload: bytes) -> Any:
        """Publish; returns how many heard it."""
        client = self._client
        with self._translated():
            if command == "SPUBLISH":
                return client.spublish(channel, payload)
            return client.execute_command(command, channel, payload)

    def script(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        """Run a script, which the server may have forgotten."""
        client = self._client
        with self._translated():
            try:
                return client.evalsha(script.sha1, len(keys), *keys, *arguments)
            except redis.exceptions.NoScriptError:
                return client.eval(script.text, len(keys), *keys, *arguments)

    @contextmanager
    def listening(self, channel: str) -> Iterator[Any]:
        """Be subscribed to a channel for the block; gives what yields the frames that come before a deadline."""
        client = self._client
        sharded = isinstance(self._target, Cluster)
        with self._translated():
            pubsub = client.pubsub()
        try:
            with self._translated():
                (pubsub.ssubscribe if sharded else pubsub.subscribe)(channel)
                self._next(pubsub, channel, time.monotonic() + self._timeout, "subscribe")

            def frames(deadline: float) -> Iterator[bytes]:
                while (frame := self._next(pubsub, channel, deadline, "message")) is not None:
                    yield frame

            yield frames
        finally:
            pubsub.close()

    def _next(self, pubsub: Any, channel: str, deadline: float, wanted: str) -> Any:
        """Return the data of the next message of the wanted kind; None if the deadline comes first."""
        while (left := deadline - time.monotonic()) > 0:
            with self._translated():
                if isinstance(self._target, Cluster):
                    found = pubsub.get_sharded_message(timeout=min(left, 0.1))
                else:
                    found = pubsub.get_message(timeout=left)
            if found is not None and found["type"].endswith(wanted):
                return found["data"]
        return None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except redis.exceptions.ResponseError as error:
            raise LayerRefused(self._target.label, str(error)) from error
        except FAILURES as error:
            raise _unreachable(self._target.label, error) from error


def _unreachable(label: str, error: BaseException) -> LayerUnreachable:
    """Say whether anything can have been done: not if there was no connection at all."""
    text = str(error)
    refused = isinstance(error.__cause__ or error.__context__, ConnectionRefusedError) or "onnecting" in text
    return (LayerUnreachable if refused or isinstance(error, NOTHING_SENT) else OutcomeUnknown)(label, text)


def _connect(target: Target, timeout: float) -> Any:
    if isinstance(target, Cluster):
        first = target.endpoints[0]
        nodes = [
            redis.cluster.ClusterNode(each.host, each.port)  # type: ignore[no-untyped-call]
            for each in target.endpoints
        ]
        return redis.cluster.RedisCluster(
            startup_nodes=nodes, socket_timeout=timeout, socket_connect_timeout=timeout, **_credentials(first),
            **NO_CLUSTER_RETRY,
        )  # fmt: skip
    if isinstance(target, Sentinels):
        sentinel = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            [(each.host, each.port) for each in target.endpoints],
            sentinel_kwargs={
                "socket_timeout": timeout,
                "socket_connect_timeout": timeout,
                **_credentials(target.endpoints[0]),
                **NO_RETRY,
            },
        )
        return sentinel.master_for(  # type: ignore[no-untyped-call]
            target.master_name, socket_timeout=timeout, socket_connect_timeout=timeout, db=target.master.database,
            connection_class=_SecureMasterConnection if target.master.tls is not None else _MasterConnection,
            **_without_ssl(_credentials(target.master)), **NO_RETRY,
        )  # fmt: skip
    endpoint = target.endpoint
    common = {"db": endpoint.database, "socket_timeout": timeout, **_credentials(endpoint), **NO_RETRY}
    if endpoint.path is not None:
        return redis.Redis(unix_socket_path=endpoint.path, **common)
    return redis.Redis(endpoint.host, endpoint.port, socket_connect_timeout=timeout, **common)


def _without_ssl(credentials: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in credentials.items() if name != "ssl"}


class _MasterConnection(redis.sentinel.SentinelManagedConnection):
    """A connection to the master that sentinels name, and to no server that is none: a replica, too, can be published
    to, and nobody would hear it.
    """

    def connect_to(self, address: tuple[str, int]) -> None:
        super().connect_to(address)  # type: ignore[no-untyped-call]
        self.send_command("ROLE", check_health=False)  # type: ignore[no-untyped-call]
        role = self.read_response()
        if role[0] not in (b"master", "master"):
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.exceptions.ConnectionError(f"connecting: {address[0]}:{address[1]} is no master any more")


class _SecureMasterConnection(_MasterConnection, redis.sentinel.SentinelManagedSSLConnection):
    """The same over TLS."""


def _credentials(endpoint: Endpoint) -> dict[str, Any]:
    """Return what says who we are, and whom we believe."""
    found: dict[str, Any] = {"username": endpoint.username, "password": endpoint.password}
    if endpoint.tls is not None:
        tls = endpoint.tls
        found |= {
            "ssl": True, "ssl_ca_certs": tls.ca_file, "ssl_certfile": tls.cert_file, "ssl_keyfile": tls.key_file,
            "ssl_check_hostname": tls.check_hostname, "ssl_cert_reqs": "required" if tls.verify else "none",
            "ssl_password": tls.key_password,
        }  # fmt: skip
    return found
