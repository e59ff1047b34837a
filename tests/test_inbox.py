"""The inbox of an instance: two bounded sides, one order of arrival, and what overflows is counted and told."""

from collections.abc import Callable, Hashable
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trichannels.exceptions import InvalidChannelLayerError
from trichannels.inbox import Dropped, Envelope, Inbox, Item, Lapsed, Latest, Ledger, Mailbox, Policy
from trichannels.layers.history import Position

from .loops import run_on_backend

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


def event(text: str = "", group: str | None = "room", kind: str = "chat", **fields: Any) -> Envelope:
    """Return an event as a layer would make it."""
    return Envelope(encode({"type": kind, "text": text, **fields}), decode, kind=kind, group=group)


SIZE = event("x").size


def sized(size: int, group: str | None = "room") -> Envelope:
    """Return an event of exactly ``size`` bytes."""
    return Envelope(bytes(size), decode, kind="chat", group=group)


def texts(mailbox: Mailbox) -> list[Any]:
    """Empty the mailbox: texts of events, and counts of drops as numbers."""
    found = []
    while (item := mailbox.get_nowait()) is not None:
        found.append(told(item.open()))
    return found


def told(message: Any) -> Any:
    return message["count"] if message["type"] == "layer.dropped" else message.get("text")


# ---- the setting


@pytest.mark.parametrize("name", ["messages", "bytes", "client_messages", "client_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "many"])
def test_a_bound_that_is_none_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidChannelLayerError, match=rf"Inbox\({name}=…\) must be an int of at least 1"):
        Inbox(**{name: value})


def test_an_unknown_policy_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"'drop_all' for 'chat\.\*' is no policy.*drop_oldest.*Latest"):
        Inbox(overflow={"prices": "latest", "chat.*": "drop_all"})  # type: ignore[dict-item]


def test_the_first_pattern_that_fits_decides_and_direct_sends_match_as_nothing() -> None:
    inbox = Inbox(overflow={"prices.eur": "latest", "prices.*": "drop_oldest", "": "disconnect"})
    assert inbox.policy_for("prices.eur") == "latest"
    assert inbox.policy_for("prices.usd") == "drop_oldest"
    assert inbox.policy_for(None) == "disconnect"
    assert inbox.policy_for("Prices.usd") == "drop_newest"  # case counts; the default where nothing fits
    assert Inbox(overflow="latest").policy_for("whatever") == Inbox(overflow="latest").policy_for(None) == "latest"
    assert Inbox(overflow={"*": "drop_oldest"}).policy_for(None) == "drop_oldest"


# ---- one order of arrival


async def test_both_sides_are_read_in_one_order_of_arrival() -> None:
    mailbox = Mailbox()
    for number in range(3):
        mailbox.put({"type": "websocket.receive", "text": f"client {number}"}, 64)
        assert mailbox.deliver(event(f"layer {number}"))
    assert texts(mailbox) == ["client 0", "layer 0", "client 1", "layer 1", "client 2", "layer 2"]


async def test_a_reader_is_woken_by_either_side() -> None:
    mailbox, read = Mailbox(), []

    async def reader() -> None:
        while (item := await mailbox.get()) is not None:
            read.append(told(item.open()))

    async with anyio.create_task_group() as nursery:
        nursery.start_soon(reader)
        await anyio.wait_all_tasks_blocked()
        mailbox.put({"type": "websocket.receive", "text": "client"}, 1)
        await anyio.wait_all_tasks_blocked()
        assert read == ["client"]
        mailbox.deliver(event("layer"))
        await anyio.wait_all_tasks_blocked()
        assert read == ["client", "layer"]
        mailbox.close()


async def test_a_reader_is_woken_by_a_drop() -> None:
    mailbox = Mailbox(Inbox(bytes=10))
    async with anyio.create_task_group() as nursery:

        async def reader() -> None:
            item = await mailbox.get()
            assert isinstance(item, Dropped)

        nursery.start_soon(reader)
        await anyio.wait_all_tasks_blocked()
        assert not mailbox.deliver(sized(11))


async def test_a_cancelled_wait_loses_nothing() -> None:
    mailbox = Mailbox()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await mailbox.get()
    async with anyio.create_task_group() as nursery:
        nursery.start_soon(mailbox.get)
        await anyio.wait_all_tasks_blocked()
        mailbox.deliver(event("one"))  # the reader is woken, and cancelled before it looks
        nursery.cancel_scope.cancel()
    left = texts(mailbox)
    mailbox.deliver(event("two"))
    with anyio.fail_after(1):
        item = await mailbox.get()
    assert item is not None
    assert [*left, told(item.open())] in (["one", "two"], ["two"])  # asyncio may let the reader have the first


async def test_each_reader_has_a_copy_of_its_own_and_all_who_peek_share_one() -> None:
    envelope = event("x", items=[1])
    first, second = Mailbox(), Mailbox()
    first.deliver(envelope)
    second.deliver(envelope)
    one, two = (item.open() for item in (first.get_nowait(), second.get_nowait()) if item is not None)
    one["items"].append(2)
    assert two["items"] == [1]
    assert envelope.peek() is envelope.peek()
    assert envelope.peek() is not envelope.open()


# ---- the client side


async def test_the_client_side_is_bounded_in_messages() -> None:
    mailbox = Mailbox(Inbox(client_messages=2))
    mailbox.put({"type": "a"}, 1)
    assert not mailbox.client_full
    mailbox.put({"type": "b"}, 1)
    assert mailbox.client_full
    mailbox.get_nowait()
    assert not mailbox.client_full


async def test_the_client_side_is_bounded_in_bytes_and_takes_one_message_of_any_size() -> None:
    mailbox = Mailbox(Inbox(client_bytes=10))
    assert not mailbox.client_full
    mailbox.put({"type": "a"}, 1000)
    assert mailbox.client_full
    assert mailbox.statistics().client_bytes == 1000
    mailbox.get_nowait()
    assert not mailbox.client_full
    assert mailbox.statistics().client_bytes == 0


async def test_room_is_waited_for_until_the_reader_makes_it_or_the_end_comes() -> None:
    mailbox, room = Mailbox(Inbox(client_messages=1)), []

    async def pump() -> None:
        for _ in range(3):
            await mailbox.client_room()
            room.append("room")
            mailbox.put({"type": "a"}, 1)

    async with anyio.create_task_group() as nursery:
        nursery.start_soon(pump)
        await anyio.wait_all_tasks_blocked()
        assert room == ["room"]
        mailbox.get_nowait()
        await anyio.wait_all_tasks_blocked()
        assert room == ["room"] * 2
        mailbox.deliver(event())
        await anyio.wait_all_tasks_blocked()
        assert room == ["room"] * 2
        mailbox.finish()
        await anyio.wait_all_tasks_blocked()
        assert room == ["room"] * 3
    assert mailbox.statistics().client_messages == 1  # nothing was put after the end


async def test_the_layer_takes_no_room_of_the_client_nor_the_reverse() -> None:
    mailbox = Mailbox(Inbox(messages=1, client_messages=1))
    mailbox.put({"type": "a"}, 1)
    assert mailbox.deliver(event("x"))
    mailbox = Mailbox(Inbox(messages=1, client_messages=1))
    mailbox.deliver(event("x"))
    mailbox.deliver(event("dropped"))
    assert not mailbox.client_full


# ---- overflow of the layer side


async def test_drop_newest_keeps_what_waits() -> None:
    mailbox = Mailbox(Inbox(messages=2, overflow="drop_newest"))
    assert [mailbox.deliver(event(text)) for text in "abcd"] == [True, True, False, False]
    assert texts(mailbox) == ["a", "b", 2]


async def test_drop_oldest_keeps_what_came_last() -> None:
    mailbox = Mailbox(Inbox(messages=2, overflow="drop_oldest"))
    mailbox.put({"type": "websocket.receive", "text": "client"}, 1)
    assert [mailbox.deliver(event(text)) for text in "abcd"] == [True] * 4
    assert texts(mailbox) == ["client", 2, "c", "d"]


async def test_disconnect_calls_overrun_and_queues_nothing() -> None:
    overruns: list[str] = []
    mailbox = Mailbox(Inbox(messages=1, overflow="disconnect"), overrun=lambda: overruns.append("overrun"))
    assert mailbox.deliver(event("a"))
    assert overruns == []
    assert not mailbox.deliver(event("b"))
    assert overruns == ["overrun"]
    assert texts(mailbox) == ["a", 1]


async def test_latest_replaces_in_place_also_when_there_is_room() -> None:
    mailbox = Mailbox(Inbox(overflow="latest"))
    mailbox.deliver(event("old"))
    mailbox.deliver(event("other", kind="join"))
    mailbox.put({"type": "websocket.receive", "text": "client"}, 1)
    mailbox.deliver(event("apart", group="attic"))
    assert mailbox.deliver(event("newer"))
    assert mailbox.statistics().layer_messages == 3
    assert mailbox.statistics().conflated == mailbox.ledger.conflated == 1
    assert texts(mailbox) == ["newer", "other", "client", "apart"]
    mailbox.deliver(event("after"))  # what was read is not replaced
    mailbox.deliver(event("last"))
    assert texts(mailbox) == ["last"]


async def test_latest_with_a_key_keeps_one_event_for_each_value() -> None:
    mailbox = Mailbox(Inbox(overflow={"prices": Latest("symbol")}))
    for text, symbol in [("1", "EUR"), ("2", "USD"), ("3", "EUR"), ("4", ["a", "list"]), ("5", ["a", "list"])]:
        mailbox.deliver(event(text, "prices", symbol=symbol))
    mailbox.deliver(event("6", "prices"))
    mailbox.deliver(event("7", "prices"))  # without the field: a key of its own
    mailbox.deliver(event("8"))
    mailbox.deliver(event("9"))  # another group, another policy
    assert texts(mailbox) == ["3", "2", "5", "7", "8", "9"]


async def test_latest_takes_any_value_as_a_key() -> None:
    mailbox = Mailbox(Inbox(overflow=Latest("key")))
    # What another serializer may bring: a tuple that holds a list. A text that looks like it is another key.
    for text, key in [("1", (1, [2])), ("2", (1, [2])), ("3", "(1, [2])")]:
        content = {"type": "event", "text": text, "key": key}
        mailbox.deliver(Envelope(b"", lambda _, content=content: dict(content), kind="event"))  # type: ignore[misc]
    assert texts(mailbox) == ["2", "3"]


async def test_latest_drops_the_oldest_when_its_keys_are_too_many() -> None:
    mailbox = Mailbox(Inbox(messages=2, overflow=Latest("id")))
    for number in range(4):
        assert mailbox.deliver(event(str(number), id=number))
    mailbox.deliver(event("2 again", id=2))
    mailbox.deliver(event("1 again", id=1))  # its older one was dropped: this is a new one
    assert texts(mailbox) == [3, "3", "1 again"]


async def test_latest_does_not_break_the_byte_bound_by_a_larger_successor() -> None:
    mailbox = Mailbox(Inbox(bytes=2 * SIZE, overflow="latest"))
    mailbox.deliver(event("a"))
    mailbox.deliver(event("b", kind="talk"))
    assert mailbox.deliver(event("larger than before"[: SIZE // 2]))
    assert mailbox.statistics().layer_bytes <= 2 * SIZE
    assert texts(mailbox)[-1] == "larger than before"[: SIZE // 2]
    mailbox.deliver(event("c"))
    mailbox.deliver(event("d"))
    assert texts(mailbox) == ["d"]  # and it is the one that is replaced from then on


async def test_the_bytes_of_the_layer_side_are_bounded() -> None:
    mailbox = Mailbox(Inbox(bytes=10))
    assert mailbox.deliver(sized(6))
    assert not mailbox.deliver(sized(5))
    assert mailbox.deliver(sized(4))
    assert mailbox.statistics().layer_bytes == 10


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest", "latest", Latest("id")])
async def test_an_event_above_the_byte_bound_drops_itself_and_nothing_else(policy: Policy) -> None:
    mailbox = Mailbox(Inbox(bytes=SIZE, overflow=policy))
    assert mailbox.deliver(event("x"))
    assert not mailbox.deliver(event("y" * SIZE))
    assert texts(mailbox) == ["x", 1]


async def test_drop_oldest_makes_room_in_bytes() -> None:
    mailbox = Mailbox(Inbox(bytes=10, overflow="drop_oldest"))
    for size in (4, 4, 8):
        assert mailbox.deliver(sized(size))
    assert mailbox.statistics().dropped == 2
    assert mailbox.statistics().layer_bytes == 8


async def test_an_event_pushes_out_only_those_whose_policy_allows_it() -> None:
    mailbox = Mailbox(Inbox(messages=3, overflow={"orders": "disconnect", "news": "drop_newest", "*": "drop_oldest"}))
    for group in ("orders", "news", "prices"):
        mailbox.deliver(event(group, group))
    assert mailbox.deliver(event("prices 2", "prices"))
    assert texts(mailbox) == ["orders", "news", 1, "prices 2"]
    for text in "abc":
        mailbox.deliver(event(text, "orders"))
    assert not mailbox.deliver(event("prices 3", "prices"))
    assert texts(mailbox) == ["a", "b", "c", 1]


# ---- what is told and counted


async def test_drops_are_told_in_one_slot_until_it_is_read() -> None:
    mailbox = Mailbox(Inbox(messages=1))
    mailbox.ledger = Ledger()
    mailbox.deliver(event("kept"))
    for group in ("b", "a", "b", None):
        mailbox.deliver(event("x", group))
    kept, notice = mailbox.get_nowait(), mailbox.get_nowait()
    assert kept is not None
    assert isinstance(notice, Dropped)
    assert notice.open() == {"type": "layer.dropped", "count": 4, "bytes": 4 * SIZE, "groups": ["a", "b"]}
    assert mailbox.get_nowait() is None
    mailbox.deliver(event("kept"))
    mailbox.deliver(event("x", "c"))
    mailbox.get_nowait()
    again = mailbox.get_nowait()
    assert again is not None
    assert again.open() == {"type": "layer.dropped", "count": 1, "bytes": SIZE, "groups": ["c"]}
    assert mailbox.statistics().dropped == mailbox.ledger.dropped == 5
    assert mailbox.ledger.dropped_bytes == 5 * SIZE
    assert mailbox.ledger.delivered == 2


async def test_the_slot_takes_no_room() -> None:
    mailbox = Mailbox(Inbox(messages=1))
    mailbox.deliver(event("a"))
    mailbox.deliver(event("dropped"))
    assert mailbox.statistics().layer_messages == 1
    mailbox.get_nowait()
    assert mailbox.deliver(event("b"))


# ---- the end


async def test_finish_lets_the_rest_be_read() -> None:
    mailbox = Mailbox()
    mailbox.put({"type": "websocket.receive", "text": "last"}, 1)
    mailbox.close_layer_side()
    mailbox.finish()
    mailbox.put({"type": "websocket.receive", "text": "too late"}, 1)
    item = await mailbox.get()
    assert item is not None
    assert item.open()["text"] == "last"
    assert await mailbox.get() is None
    assert await mailbox.get() is None


async def test_the_layer_side_closes_alone_and_forgets_what_waits() -> None:
    mailbox = Mailbox(Inbox(messages=1, overflow="latest"))
    mailbox.put({"type": "websocket.receive", "text": "client"}, 5)
    mailbox.deliver(event("layer"))
    mailbox.deliver(event("dropped", kind="other"))
    mailbox.close_layer_side()
    assert not mailbox.deliver(event("too late"))
    assert mailbox.ledger.undeliverable == 1
    statistics = mailbox.statistics()
    assert (statistics.layer_messages, statistics.layer_bytes) == (0, 0)
    assert (statistics.client_messages, statistics.client_bytes) == (1, 5)
    assert texts(mailbox) == ["client"]


async def test_close_forgets_all_and_tells_how_many_of_the_client_went_unread() -> None:
    mailbox = Mailbox()
    mailbox.put({"type": "a"}, 1)
    mailbox.put({"type": "b"}, 1)
    mailbox.deliver(event("x"))
    assert mailbox.close() == 2
    assert await mailbox.get() is None
    assert mailbox.close() == 0
    assert mailbox.statistics().client_bytes == 0


@pytest.mark.parametrize(
    "steps", [[Mailbox.close], [Mailbox.close_layer_side, Mailbox.finish], [Mailbox.finish, Mailbox.close_layer_side]]
)
async def test_the_end_wakes_the_reader(steps: list[Callable[[Mailbox], Any]]) -> None:
    mailbox, read = Mailbox(), []

    async def reader() -> None:
        read.append(await mailbox.get())

    async with anyio.create_task_group() as nursery:
        nursery.start_soon(reader)
        for step in steps:
            await anyio.wait_all_tasks_blocked()
            assert read == []
            step(mailbox)
    assert read == [None]


async def test_forgotten_events_leave_a_side_that_works() -> None:
    mailbox = Mailbox(Inbox(messages=1, overflow="latest"))
    mailbox.put({"type": "websocket.receive", "text": "client"}, 1)
    mailbox.deliver(event("old"))
    mailbox.deliver(event("dropped", kind="other"))
    mailbox.forget_layer_events()
    assert mailbox.deliver(event("new"))
    mailbox.deliver(event("newest", kind="other"))
    assert texts(mailbox) == ["client", 1, "newest"]


def test_reprs_tell_the_state() -> None:
    async def look() -> None:
        mailbox = Mailbox()
        mailbox.put({"type": "a"}, 1)
        assert repr(mailbox) == "<Mailbox 1 from the client, 0 from the layer>"
        assert repr(event()) == f"<Envelope 'chat' to room, {SIZE - 1} bytes>"
        assert "to a channel" in repr(event(group=None))

    run_on_backend(look)


# ---- against a plain reference


class Reference:
    """The same promises in the plainest words: one list, searched each time."""

    def __init__(self, limits: Inbox) -> None:
        self.limits, self.queue = limits, list[Any]()
        self.messages = limits.messages or 100
        self.dropped = self.conflated = 0

    def put(self, item: Any) -> None:
        self.queue.append(item)

    def waiting(self) -> list[Envelope]:
        return [item for item in self.queue if isinstance(item, Envelope)]

    def fits(self, envelope: Envelope) -> bool:
        waiting = self.waiting()
        return len(waiting) < self.messages and sum(item.size for item in waiting) + envelope.size <= self.limits.bytes

    def identity(self, envelope: Envelope) -> Hashable:
        policy = self.limits.policy_for(envelope.group)
        if policy == "latest":
            return envelope.group, envelope.type
        if isinstance(policy, Latest):
            return envelope.group, envelope.type, envelope.open().get(policy.key or "")
        return None

    def drop(self, envelope: Envelope) -> None:
        self.dropped += 1
        if not any(isinstance(item, int) for item in self.queue):
            self.queue.append(0)
        self.queue = [item + 1 if isinstance(item, int) else item for item in self.queue]

    def deliver(self, envelope: Envelope) -> bool:
        identity = self.identity(envelope)
        same = [item for item in self.waiting() if identity is not None and self.identity(item) == identity]
        if same:
            rest = sum(item.size for item in self.waiting() if item is not same[-1])
            if rest + envelope.size <= self.limits.bytes:
                self.queue[self.queue.index(same[-1])] = envelope
                self.conflated += 1
                return True
        policy = self.limits.policy_for(envelope.group)
        if not self.fits(envelope):
            if policy in ("drop_newest", "disconnect") or envelope.size > self.limits.bytes:
                self.drop(envelope)
                return False
            while not self.fits(envelope):
                weak = [item for item in self.waiting() if self.is_weak(item)]
                if not weak:
                    self.drop(envelope)
                    return False
                self.queue.remove(weak[0])
                self.drop(weak[0])
        self.queue.append(envelope)
        return True

    def is_weak(self, item: Envelope) -> bool:
        return self.limits.policy_for(item.group) not in ("drop_newest", "disconnect")

    def take(self) -> Any:
        return self.queue.pop(0) if self.queue else None


policies = st.sampled_from(["drop_newest", "drop_oldest", "latest", "disconnect", Latest(), Latest("id")])
inboxes = st.builds(
    Inbox,
    messages=st.integers(1, 4),
    bytes=st.integers(SIZE, 5 * SIZE),
    overflow=policies | st.fixed_dictionaries({"a": policies, "b": policies}),
)
events = st.builds(
    event,
    st.text("xy", max_size=SIZE),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["one", "two"]),
    id=st.integers(0, 2),
)
steps = st.lists(st.one_of(events, st.just("client"), st.just("take")), max_size=60)


@settings(max_examples=200, deadline=None)
@pytest.mark.once
@given(inboxes, steps)
def test_the_mailbox_does_what_a_plain_list_would_do(limits: Inbox, script: list[Envelope | str]) -> None:
    async def compare() -> None:
        mailbox, reference = Mailbox(limits), Reference(limits)
        for step in script:
            if isinstance(step, Envelope):
                fresh = Envelope(step.payload, decode, kind=step.type, group=step.group)
                assert mailbox.deliver(fresh) == reference.deliver(fresh)
            elif step == "client":
                mailbox.put({"type": "client"}, 3)
                reference.put("client")
            else:
                assert plain(mailbox.get_nowait()) == reference.take()
            check(mailbox, reference)
        while reference.queue:
            assert plain(mailbox.get_nowait()) == reference.take()
        assert mailbox.get_nowait() is None

    run_on_backend(compare)


def plain(item: Item | None) -> Any:
    if isinstance(item, Dropped):
        return item.count
    return item if item is None or isinstance(item, Envelope) else "client"


def check(mailbox: Mailbox, reference: Reference) -> None:
    statistics, waiting = mailbox.statistics(), reference.waiting()
    assert statistics.layer_messages == len(waiting) <= (mailbox.limits.messages or 100)
    assert statistics.layer_bytes == sum(item.size for item in waiting) <= mailbox.limits.bytes
    assert statistics.client_messages == reference.queue.count("client")
    assert statistics.client_bytes == 3 * statistics.client_messages
    assert (statistics.dropped, statistics.conflated) == (reference.dropped, reference.conflated)


# ---- groups with history


def placed(number: int, group: str = "log") -> Envelope:
    return Envelope(
        str(number).encode(), lambda payload: {"n": int(payload)}, group=group, position=Position(number, "e")
    )


def items_of(box: Mailbox) -> list[Any]:
    return list(iter(box.get_nowait, None))


def drained(box: Mailbox) -> list[Any]:
    return [item.open() for item in items_of(box)]


RESYNC = {"type": "layer.resync", "group": "log", "recovered": False}


async def test_what_was_missed_comes_first_and_in_no_bound() -> None:
    box = Mailbox(Inbox(messages=2))
    box.enter("log", [placed(n) for n in range(1, 6)])
    assert all(box.deliver(placed(n)) for n in (6, 7))
    assert box.statistics().layer_messages == 2
    assert drained(box) == [{"n": n} for n in range(1, 8)]


async def test_nothing_of_a_history_is_pushed_out_or_conflated() -> None:
    for overflow in ("drop_oldest", "latest", Latest("n")):
        box = Mailbox(Inbox(messages=2, overflow=overflow))
        for n in (1, 2):
            box.deliver(placed(n))
        plain = Envelope(b"9", lambda payload: {"n": int(payload)}, group="plain")
        assert not box.deliver(plain)
        assert [item for item in drained(box) if "n" in item] == [{"n": 1}, {"n": 2}]


async def test_a_lapsed_reader_is_told_once_and_gets_nothing_until_it_has_caught_up() -> None:
    box = Mailbox(Inbox(messages=2))
    assert [box.deliver(placed(n)) for n in range(1, 6)] == [True, True, False, False, False]
    assert box.has_lapsed("log")
    assert [box.get_nowait().open() for _ in range(2)] == [{"n": 1}, {"n": 2}]  # type: ignore[union-attr]
    lapsed = box.get_nowait()
    assert isinstance(lapsed, Lapsed)
    assert not box.deliver(placed(6))
    box.put_back(lapsed)
    assert box.get_nowait() is lapsed
    box.enter("log", [placed(n) for n in range(3, 7)])
    assert box.deliver(placed(7))
    assert drained(box) == [{"n": n} for n in range(3, 8)]


async def test_one_resync_waits_until_something_has_come_behind_it() -> None:
    box = Mailbox()
    box.resync("log", Position(1, "e"))
    box.resync("log", Position(5, "e"))
    box.deliver(placed(6))
    box.resync("log", Position(8, "e"))
    box.deliver(placed(9))
    seen = [(item.open(), item.position) for item in items_of(box)]
    assert seen == [
        (RESYNC, Position(5, "e")),
        ({"n": 6}, Position(6, "e")),
        (RESYNC, Position(8, "e")),
        ({"n": 9}, Position(9, "e")),
    ]
    box.resync("log")
    assert drained(box) == [RESYNC]


async def test_nothing_is_written_past_a_notice_or_a_history() -> None:
    box = Mailbox()
    taken: list[Envelope] = []
    box.direct = lambda envelope: not taken.append(envelope)  # type: ignore[func-returns-value]
    box.resync("log")
    box.deliver(placed(1))
    box.enter("log", [placed(0)])
    assert not taken
    assert len(drained(box)) == 3
    box.deliver(placed(2))
    assert len(taken) == 1


async def test_a_closed_layer_side_takes_no_notices() -> None:
    box = Mailbox()
    box.enter("log", [placed(1)])
    box.resync("log")
    box.close_layer_side()
    box.resync("log")
    box.enter("log", [placed(2)])
    box.put_back(Lapsed("log"))
    assert drained(box) == []
