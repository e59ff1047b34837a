"""A Redis layer's options: those of channels_redis by their names, and errors that name what is wrong."""

import re
from typing import Any

import pytest

from trichannels.exceptions import InvalidChannelLayerError
from trichannels.layers import History
from trichannels.layers.redis import Buffer, RedisChannelLayer, RedisPubSubChannelLayer, Timeouts
from trichannels.layers.redis.options import escaped


def test_what_a_project_on_channels_redis_has_in_its_settings() -> None:
    layer = RedisPubSubChannelLayer(
        hosts=[("127.0.0.1", 6379), "redis://:secret@localhost:6380/1", {"address": "redis://h:1", "db": 3}],
        prefix="p", expiry=10, group_expiry=20, capacity=30, channel_capacity={"a*": 1, re.compile("^b"): 2},
        symmetric_encryption_keys=["x"], random_prefix_length=12, serializer_format="json",
        on_disconnect=lambda: None, on_reconnect=lambda: None,
    )  # fmt: skip
    assert isinstance(layer, RedisChannelLayer)
    assert (layer.expiry, layer.group_expiry, layer.capacity) == (10, 20, 30)
    assert (layer.get_capacity("abc"), layer.get_capacity("bcd"), layer.get_capacity("c")) == (1, 2, 30)
    assert len(layer.targets) == 3
    assert "secret" not in repr(vars(layer))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"prefx": "a"}, "no option 'prefx': did you mean 'prefix'"),
        ({"colour": "red"}, "no option 'colour'$"),
        ({"hosts": ["redis://a"], "url": "redis://b"}, "'hosts' and 'url' contradict"),
        ({"url": 7}, "url must be a str"),
        ({"url": "http://a"}, "must begin with one of redis://"),
        ({"hosts": "redis://a"}, "hosts must be a list"),
        ({"wire": "carrier pigeon"}, "wire must be one of 'native'"),
        ({"wire": "channels_redis.pubsub", "history": {"*": History()}}, "'history' and wire="),
        ({"prefix": ""}, "prefix must be"),
        ({"prefix": "{a}"}, "prefix must be"),
        ({"serializer_format": "yaml"}, "serializer_format must be"),
        ({"serializer_format": "json", "serializer": object()}, "'serializer' and 'serializer_format' contradict"),
        ({"symmetric_encryption_keys": "key"}, "symmetric_encryption_keys must be a list"),
        ({"history": ["a"]}, "history must map"),
        ({"history": {"a": 7}}, r"history\['a'\] must be a History"),
        ({"capacity": 0}, "capacity must be a number above 0"),
        ({"channel_capacity": {"a": -1}}, r"channel_capacity\['a'\]"),
        ({"expiry": "long"}, "expiry must be"),
        ({"unreachable": "buffer"}, "unreachable must be 'fail' or a Buffer"),
        ({"on_disconnect": "redis.disconnect"}, "on_disconnect must be a function.*layer_resync"),
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": True}, "timeout must be"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=problem):
        RedisChannelLayer(**options)


@pytest.mark.parametrize("wrong", [{"messages": 0}, {"bytes": 1.5}, {"messages": True}])
def test_a_wrong_buffer_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidChannelLayerError, match=rf"Buffer\({next(iter(wrong))}=…\)"):
        Buffer(**wrong)


@pytest.mark.parametrize("wrong", [{"ping": 0}, {"connect": "5"}, {"backoff_most": -1}, {"reply": float("nan")}])
def test_a_wrong_timeout_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidChannelLayerError, match=rf"Timeouts\({next(iter(wrong))}=…\)"):
        Timeouts(**wrong)


def test_a_prefix_is_no_pattern() -> None:
    assert escaped("a*[b]?^\\c") == "a\\*\\[b\\]\\?\\^\\\\c"
