"""A fleet of Channels' tutorial moves to us, process by process on one Redis, and back; and what does not mix then."""

import asyncio
import json
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from trichannels.cli import main
from trichannels.exceptions import InvalidChannelLayerError, LayerRefused
from trichannels.layers.redis.layer import RedisChannelLayer
from trichannels.layers.redis.sync import SyncChannelLayer

from ..project.programs import Program
from ..redis.servers import RedisProcess
from .fragments import page
from .test_project import PROJECT, write

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]

# What the docs want to be the same on both sides, and what the settings still have from channels_redis.core.
LAYERS = """\
CHANNEL_LAYERS = {{
    "default": {{
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {{
            "hosts": [("127.0.0.1", {port})],
            "prefix": "mysite",
            "symmetric_encryption_keys": [SECRET_KEY],
            "capacity": 1500,
            "expiry": 10,
            "group_expiry": 3600,
        }},
    }},
}}
"""
WIRE = '"wire": "channels_redis.pubsub"'  # what the docs add after the upgrade
LISTENS = r"(?i)listening on \D+([\d.]+:\d+)"
ORDINARY = re.compile(r'.*\bINFO\b|.* - - \[.+\] "(?:GET|WS\w+) /')  # all else in a log is a complaint
GREETING = {"chat": ["welcome"], "sync": []}
PATIENCE = 30  # seconds; only a test that fails waits so long


@dataclass(frozen=True)
class Project:
    """The tutorial in a folder, what serves it, and how its sockets end when that is stopped."""

    folder: Path
    server: Sequence[str]
    code: int

    def start(self) -> Program:
        return Program("-m", *self.server, folder=self.folder)


def on_channels(folder: Path, port: int) -> Project:
    settings = PROJECT["mysite/settings.py"].partition("CHANNEL_LAYERS")[0] + LAYERS.format(port=port)
    routing = PROJECT["chat/routing.py"].replace("ChatConsumer)", "ChatConsumer.as_asgi())")
    write({**PROJECT, "mysite/settings.py": settings, "chat/routing.py": routing}, folder)
    return Project(folder, ["daphne", "-b", "127.0.0.1", "-p", "0", "mysite.asgi:application"], 1006)


def on_trichannels(folder: Path, port: int) -> Project:
    on_channels(folder, port)
    assert main(["upgrade", str(folder)]) == 0
    settings = folder / "mysite" / "settings.py"
    assert WIRE in page("index.md")
    settings.write_text(settings.read_text().replace('"CONFIG": {', f'"CONFIG": {{{WIRE}, '))
    return Project(folder, ["trichannels", "serve", "mysite.asgi:application", "--bind", "127.0.0.1:0"], 1012)


class Person:
    """Somebody with a socket to one process of the fleet, who hears each message once and in order."""

    program: Program
    socket: ClientConnection
    address: str

    def __init__(self, consumer: str, project: Project) -> None:
        self.consumer, self.project = consumer, project
        self._here = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as there:
            self._arrive(self.project, there.enter_context(self.project.start()), there)
        return self

    def __exit__(self, *raised: object) -> None:
        self._here.close()

    @contextmanager
    def moving(self, project: Project) -> Iterator[None]:
        """Start a process beside. For the block this person is nowhere, for the old one is stopped; then there."""
        with ExitStack() as there:
            beside = there.enter_context(project.start())
            self.leave()
            yield
            self._arrive(project, beside, there)

    def _arrive(self, project: Project, program: Program, there: ExitStack) -> None:
        self.project, self.program = project, program
        self.address = program.wait_for(LISTENS)[1]
        url, origin = f"ws://{self.address}/ws/{self.consumer}/lobby/", Origin(f"http://{self.address}")
        self.socket = there.enter_context(connect(url, origin=origin, proxy=None))
        for text in GREETING[self.consumer]:
            self.hear(text)
        self._here = there.pop_all()

    def leave(self) -> None:
        """The process is stopped: the socket ends, nothing more had come, and there was nothing to complain of."""
        self.program.tell(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            self.socket.recv(PATIENCE)
        assert (closed.value.rcvd.code if closed.value.rcvd else 1006) == self.project.code
        assert self.program.end() == 0
        said = (self.program.out + self.program.err).splitlines()
        assert [line for line in said if not ORDINARY.match(line)] == []
        self._here.close()

    def say(self, text: str) -> None:
        self.socket.send(json.dumps({"message": text}))

    def hear(self, text: str) -> None:
        assert json.loads(self.socket.recv(PATIENCE)) == {"message": text}

    def visit(self) -> None:
        """Look at a page that tells the room, from blocking code."""
        told = httpx.get(f"http://{self.address}/chat/lobby/", timeout=PATIENCE, trust_env=False)
        assert told.text == "told"


def talk(people: Sequence[Person], about: str) -> None:
    """Everybody hears what each of them says, and what the page of each process tells."""
    for number, speaker in enumerate(people):
        speaker.say(f"{number} on {about}: ä")
        for listener in people:
            listener.hear(f"{number} on {about}: ä")
        speaker.visit()
        for listener in people:
            listener.hear("from a view")


def test_it_moves_and_goes_back_while_people_talk(tmp_path: Path) -> None:
    with RedisProcess() as redis:
        before, after = on_channels(tmp_path / "before", redis.port), on_trichannels(tmp_path / "after", redis.port)
        with Person("chat", before) as ada, Person("sync", before) as bob:
            talk([ada, bob], "Channels")
            for mover, stayer, project, about in (
                (bob, ada, after, "the first that moves"),
                (ada, bob, after, "all that have moved"),
                (bob, ada, before, "the first that goes back"),
                (ada, bob, before, "Channels again"),
            ):
                with mover.moving(project):
                    talk([stayer], "being alone")
                talk([ada, bob], about)
                assert redis.admin("KEYS", "*") == [], "neither side has put anything there"
            for person in (ada, bob):
                person.leave()


OLD_WIRE: Mapping[str, Any] = {"wire": "channels_redis.pubsub"}
JOB = {"type": "mail.send", "to": "ada"}


def test_jobs_from_both_sides_come_to_each_worker_of_channels_and_to_none_of_ours() -> None:
    async def work(redis: RedisProcess) -> None:
        from channels_redis.pubsub import RedisPubSubChannelLayer

        workers = [RedisPubSubChannelLayer(hosts=[redis.url]) for _ in range(2)]
        async with asyncio.timeout(PATIENCE), RedisChannelLayer(url=redis.url, **OLD_WIRE) as ours:
            for sender in (workers[0], ours):
                receiving = [asyncio.create_task(worker.receive("mail")) for worker in workers]
                while redis.admin("PUBSUB", "NUMSUB", "mail") != ["mail", 2]:
                    await asyncio.sleep(0)  # it offers no event to wait for
                await sender.send("mail", JOB)
                assert await asyncio.gather(*receiving) == [JOB, JOB]
            with pytest.raises(InvalidChannelLayerError, match="no work queues"):
                async with ours.open_queue("mail"):
                    pass
        for worker in workers:
            await worker.flush()

    with RedisProcess() as redis:
        asyncio.run(work(redis))


def test_nothing_comes_later_from_blocking_code() -> None:
    with SyncChannelLayer(**OLD_WIRE) as layer, pytest.raises(InvalidChannelLayerError, match="only work queues take"):
        layer.send("mail", JOB, delay=60)


def test_what_only_we_send_on_ends_a_socket_of_channels() -> None:
    from channels.generic.websocket import AsyncWebsocketConsumer

    with pytest.raises(ValueError, match=r"No handler for message type websocket\.send"):
        asyncio.run(AsyncWebsocketConsumer().dispatch({"type": "websocket.send", "text": "hello"}))


def test_a_user_of_redis_with_some_channels_only_cannot_have_the_old_wire() -> None:
    async def connect_as(redis: RedisProcess, **options: Any) -> None:
        async with RedisChannelLayer(url=f"redis://mysite:pw@127.0.0.1:{redis.port}", prefix="mysite", **options):
            pass

    with RedisProcess() as redis:
        redis.admin("ACL", "SETUSER", "mysite", "on", ">pw", "+@all", "~mysite:*", "&mysite:*")
        asyncio.run(connect_as(redis))
        with pytest.raises(LayerRefused, match="change its ACL"):
            asyncio.run(connect_as(redis, **OLD_WIRE))
        redis.admin("ACL", "SETUSER", "mysite", "&*")
        asyncio.run(connect_as(redis, **OLD_WIRE))
