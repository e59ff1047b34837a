"""FaultyLayer: transparent without faults, exact with a plan, repeatable by its seed; its own rules hold."""

from typing import Any

import anyio
import pytest

from trichannels.exceptions import InvalidChannelLayerError, LayerClosed
from trichannels.layers.base import ChannelLayer
from trichannels.layers.memory import InMemoryChannelLayer
from trichannels.testing import FaultInjected, FaultyLayer
from trichannels.testing.contract.messages import REFUSED
from trichannels.testing.layers import LayerContract

pytestmark = pytest.mark.once


class TestWithoutFaults(LayerContract):
    """A wrapper that does nothing is a layer like any other."""

    quiet = 0.03

    def make_layer(self) -> ChannelLayer:
        return FaultyLayer(InMemoryChannelLayer())

    def configured(self, **options: Any) -> ChannelLayer:
        histories = options.pop("histories", None)
        return FaultyLayer(InMemoryChannelLayer(**options, history=histories))


class TestTwoViews(LayerContract):
    """A wrapper around an open layer is a second view of it, as another process would have."""

    quiet = 0.03

    def make_layer(self) -> ChannelLayer:
        return InMemoryChannelLayer()

    def make_peer(self, layer: ChannelLayer) -> ChannelLayer:
        return FaultyLayer(layer)


async def numbers(layer: ChannelLayer, count: int = 200) -> list[int]:
    """Send numbered events to a group and return those that came."""
    got = []
    async with layer, layer.subscribe("group") as events:
        for number in range(count):
            try:
                await layer.group_send("group", {"type": "x", "number": number})
            except FaultInjected:
                got.append(-1)
            while events.statistics().layer_messages:
                got.append((await events.receive())["number"])
    return got


async def test_a_plan_is_exact() -> None:
    layer = FaultyLayer(InMemoryChannelLayer())
    layer.plan("group_send", "drop", None, "duplicate", "fail")
    assert await numbers(layer, 6) == [1, 2, 2, -1, 4, 5]
    assert dict(layer.injected) == {
        ("group_send", "drop"): 1,
        ("group_send", "duplicate"): 1,
        ("group_send", "fail"): 1,
    }


async def test_chance_repeats_itself() -> None:
    def make(seed: int, drop: float, duplicate: float = 0) -> FaultyLayer:
        return FaultyLayer(InMemoryChannelLayer(), seed=seed, drop=drop, duplicate=duplicate)

    lost = await numbers(make(1, drop=0.3))
    assert lost == await numbers(make(1, drop=0.3))
    assert lost != await numbers(make(2, drop=0.3))
    assert 100 < len(lost) < 180
    both = await numbers(make(1, drop=0.3, duplicate=0.3))
    assert sorted(set(both)) == lost  # one fault does not change another one's luck
    assert len(both) > len(lost)
    assert await numbers(make(1, drop=1)) == []


async def test_faults_are_chosen_by_operation(autojump_clock: object) -> None:
    layer = FaultyLayer(InMemoryChannelLayer(), fail={"group_add": 1}, delay={"send": 2}, drop={"send": 1})
    async with layer:
        channel = await layer.new_channel()
        with pytest.raises(FaultInjected, match="group_add"):
            await layer.group_add("group", channel)
        with pytest.raises(FaultInjected):
            async with layer.subscribe("group"):
                raise AssertionError("not reached")
        assert layer.statistics().channels == layer.statistics().memberships == 0
        start = anyio.current_time()
        await layer.send(channel, {"type": "x"})
        assert anyio.current_time() - start == pytest.approx(2)
        assert layer.statistics().waiting_messages == 0
        await layer.flush()
        await layer.group_discard("group", channel)
        assert anyio.current_time() - start == pytest.approx(2)


async def test_a_delay_may_be_cancelled(autojump_clock: object) -> None:
    async with FaultyLayer(InMemoryChannelLayer(), delay=5) as layer:
        channel = await layer.new_channel()
        with anyio.move_on_after(1) as scope:
            await layer.send(channel, {"type": "x"})
        assert scope.cancelled_caught
        assert layer.statistics().waiting_messages == 0


@pytest.mark.parametrize("operation", ["receive", "new_channel", "group_discard", "flush", "send"])
async def test_any_operation_can_fail_with_an_error_of_choice(operation: str) -> None:
    layer = FaultyLayer(InMemoryChannelLayer(), fail={operation: 1}, error=lambda name: OSError(f"{name} broke"))
    takes: dict[str, list[Any]] = {"receive": ["c"], "group_discard": ["g", "c"], "send": ["c", {"type": "x"}]}
    async with layer:
        with pytest.raises(OSError, match=f"{operation} broke"):
            await getattr(layer, operation)(*takes.get(operation, []))


async def test_what_would_raise_raises_even_where_it_would_be_dropped() -> None:
    async with FaultyLayer(InMemoryChannelLayer(), drop=1) as layer:
        for content, _ in REFUSED:
            with pytest.raises(TypeError):
                await layer.send("channel", content)
        with pytest.raises(TypeError):
            await layer.group_send("a b", {"type": "x"})


async def test_the_layer_inside_is_opened_once() -> None:
    inner = InMemoryChannelLayer()
    async with FaultyLayer(inner):
        assert inner.opened
    assert not inner.opened
    async with inner:
        view = FaultyLayer(inner)
        with pytest.raises(LayerClosed):
            await view.flush()
        async with view:
            pass
        assert inner.opened


def test_wrong_settings_say_what_is_right() -> None:
    inner = InMemoryChannelLayer()
    with pytest.raises(InvalidChannelLayerError, match="from 0 to 1"):
        FaultyLayer(inner, drop=1.5)
    with pytest.raises(InvalidChannelLayerError, match="'drop' does not apply to 'group_add'"):
        FaultyLayer(inner, drop={"group_add": 1})
    with pytest.raises(InvalidChannelLayerError, match="choose from send, group_send"):
        FaultyLayer(inner).plan("flush", "duplicate")
    with pytest.raises(InvalidChannelLayerError, match="'plan' does not apply to 'nonsense'"):
        FaultyLayer(inner).plan("nonsense", None)
