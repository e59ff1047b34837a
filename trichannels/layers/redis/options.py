"""What a Redis layer may be told: channels_redis' options by their names, and ours. Wrong ones are named."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...exceptions import InvalidChannelLayerError
from ..serializers import Serializer, make_serializer
from .address import Sentinels, Standalone, Target, parse_hosts
from .names import Native, PubSubCompatible

WIRES: Final = {"native": Native, "channels_redis.pubsub": PubSubCompatible}
DEFAULT_URL = "redis://localhost:6379"


@dataclass(frozen=True, slots=True)
class Buffer:
    """What ``group_send`` keeps while the server is away, in events and in bytes, to send it once it is back.

    In order, and before anything newer. What does not fit raises :class:`LayerUnreachable`, as everything does without.
    """

    messages: int = 1000
    bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("messages", "bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidChannelLayerError(f"Buffer({name}=…) must be an int of at least 1, not {value!r}")


def check_names(known: Iterable[str], unknown: Mapping[str, Any], layer: str) -> None:
    """Raise :class:`InvalidChannelLayerError` for options that do not exist, and guess what was meant."""
    for name in unknown:
        close = difflib.get_close_matches(name, list(known), 1)
        raise InvalidChannelLayerError(
            f"{layer} has no option {name!r}" + (f": did you mean {close[0]!r}?" if close else "")
        )


def targets_of(hosts: object, url: str | None) -> Sequence[Target]:
    """Return the servers that ``hosts`` or ``url`` name."""
    if hosts is not None and url is not None:
        raise InvalidChannelLayerError("the options 'hosts' and 'url' contradict each other: give one of them")
    if url is not None:
        if not isinstance(url, str):
            raise InvalidChannelLayerError(f"url must be a str such as {DEFAULT_URL!r}, not {url!r}")
        return parse_hosts([url])
    return parse_hosts(hosts or [DEFAULT_URL])


def check_files(targets: Iterable[Target]) -> None:
    """Raise :class:`InvalidChannelLayerError` for TLS files that cannot be used: once, not with each connection."""
    for target in targets:
        endpoints = [target.endpoint] if isinstance(target, Standalone) else list(target.endpoints)
        for endpoint in [*endpoints, *([target.master] if isinstance(target, Sentinels) else [])]:
            if endpoint.tls is not None:
                endpoint.tls.context()


def escaped(text: str) -> str:
    """Return a glob pattern that means this very text."""
    return "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in text)


def wire_of(wire: str, prefix: object, history: object) -> Native | PubSubCompatible:
    """Return the names and frames to be used."""
    if wire not in WIRES:
        raise InvalidChannelLayerError(f"wire must be one of {', '.join(map(repr, WIRES))}, not {wire!r}")
    if not isinstance(prefix, str) or not prefix or set(prefix) & set("{}"):
        raise InvalidChannelLayerError(f"prefix must be a str without braces, not {prefix!r}")
    if wire != "native" and history:
        raise InvalidChannelLayerError(
            f"the options 'history' and wire={wire!r} contradict each other: channels_redis knows no positions"
        )
    return Native(prefix) if wire == "native" else PubSubCompatible(prefix)


def serializer_of(
    serializer_format: str | Serializer, keys: Iterable[str | bytes] | None, serializer: Serializer | None
) -> Serializer:
    """Return the serializer; ``serializer`` is an object, as the memory layer takes one."""
    if serializer is not None and serializer_format != "msgpack":
        raise InvalidChannelLayerError("the options 'serializer' and 'serializer_format' contradict each other")
    return make_serializer(serializer if serializer is not None else serializer_format, keys)
