"""Django's setting ``CHANNEL_LAYERS``: aliases to ``{"BACKEND": path, "CONFIG": options, "TEST_CONFIG": options}``.

Django is looked for, never required: without it, or before ``django.setup()``, nothing is configured.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..exceptions import InvalidChannelLayerError
from .base import ChannelLayer

RENAMED = {
    "channels.layers.InMemoryChannelLayer": "trichannels.layers.InMemoryChannelLayer",
    "channels_redis.core.RedisChannelLayer": "trichannels.layers.redis.RedisChannelLayer",
    "channels_redis.pubsub.RedisPubSubChannelLayer": "trichannels.layers.redis.RedisPubSubChannelLayer",
}
KEYS = ("BACKEND", "CONFIG", "TEST_CONFIG")


def settings() -> Any:
    """Return Django's settings; None where there are none yet."""
    conf = sys.modules.get("django.conf")
    return conf.settings if conf is not None and conf.settings.configured else None


def configurations() -> dict[str, dict[str, Any]]:
    """Return what the setting says; raises :class:`InvalidChannelLayerError` for one that is no such dict."""
    found = getattr(settings(), "CHANNEL_LAYERS", None) or {}
    if not isinstance(found, Mapping):
        raise InvalidChannelLayerError(f"CHANNEL_LAYERS must be a dict of aliases to dicts, not {found!r}")
    return {alias: _checked(alias, one) for alias, one in found.items()}


def _checked(alias: str, one: Any) -> dict[str, Any]:
    where = f"CHANNEL_LAYERS[{alias!r}]"
    if not isinstance(one, Mapping) or not isinstance(one.get("BACKEND"), str):
        raise InvalidChannelLayerError(f"{where} must be a dict with a 'BACKEND': the path of a layer's class")
    if unknown := sorted(set(one) - set(KEYS)):
        raise InvalidChannelLayerError(f"{where} has no {unknown[0]!r}: put options into 'CONFIG'")
    if one["BACKEND"] in RENAMED:
        raise InvalidChannelLayerError(
            f"{where}: {one['BACKEND']!r} is of Channels: write {RENAMED[one['BACKEND']]!r}, with the same CONFIG"
        )
    return dict(one)


def backend_class(alias: str, configuration: Mapping[str, Any]) -> Any:
    """Return the class that a configuration names."""
    path: str = configuration["BACKEND"]
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidChannelLayerError(
            f"CHANNEL_LAYERS[{alias!r}]: there is no {path!r} ({error}); "
            f"ours are {', '.join(map(repr, RENAMED.values()))}"
        ) from error


def make_layers() -> dict[str, ChannelLayer]:
    """Return new layers, not opened yet; raises :class:`InvalidChannelLayerError` for wrong options."""
    return {alias: _make(alias, one) for alias, one in configurations().items()}


def _make(alias: str, configuration: Mapping[str, Any]) -> ChannelLayer:
    made: ChannelLayer = _with_options(alias, configuration, backend_class(alias, configuration))
    return made


def _with_options(alias: str, configuration: Mapping[str, Any], make: Callable[..., Any]) -> Any:
    key = "TEST_CONFIG" if _CONFIGURED.testing and "TEST_CONFIG" in configuration else "CONFIG"
    options = configuration.get(key) or {}
    try:
        return make(**options)
    except (TypeError, ValueError) as error:
        raise InvalidChannelLayerError(f"CHANNEL_LAYERS[{alias!r}]: {error}") from error


class _Configured:
    """The layers of this process that were made, and whether it is under test. No loop is held here."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.testing = False
        self.first: dict[str, ChannelLayer] | None = None
        self.claimed = False  # a loop has opened those, or is about to
        self.blocking: dict[str, Any] = {}

    def forget(self) -> None:
        """The setting has changed."""
        with self.lock:
            self.first, self.claimed = None, False
            for layer in self.blocking.values():
                layer.close()
            self.blocking.clear()


_CONFIGURED = _Configured()
forget_layers = _CONFIGURED.forget


def configured_layers() -> Mapping[str, ChannelLayer]:
    """Return the layers that a loop would open, to be looked at."""
    with _CONFIGURED.lock:
        if _CONFIGURED.first is None:
            layers = make_layers()
            _CONFIGURED.first = layers or None  # none at all may be those of a Django that is not set up yet
            return layers
        return _CONFIGURED.first


def claim_layers() -> Mapping[str, ChannelLayer]:
    """Return layers that are the running loop's own to open: those, unless another loop has them."""
    with _CONFIGURED.lock:
        layers = make_layers() if _CONFIGURED.claimed else configured_layers()
        _CONFIGURED.claimed = _CONFIGURED.claimed or layers is _CONFIGURED.first
        return layers


def release_layers(layers: Mapping[str, ChannelLayer]) -> None:
    """Let another loop have them: they are closed."""
    with _CONFIGURED.lock:
        if layers is _CONFIGURED.first:
            _CONFIGURED.claimed = False


def blocking_layer(alias: str) -> Any:
    """Return what sends without a loop, for all threads; raises :class:`InvalidChannelLayerError`."""
    with _CONFIGURED.lock:
        if alias not in _CONFIGURED.blocking:
            configuration = configurations().get(alias)
            if configuration is None:
                raise InvalidChannelLayerError(
                    f"no channel layer {alias!r} is open here, and CHANNEL_LAYERS, in Django's settings, has none"
                )
            made = backend_class(alias, configuration)
            _CONFIGURED.blocking[alias] = _with_options(alias, configuration, made.blocking)
        return _CONFIGURED.blocking[alias]


@contextmanager
def configurations_for_tests() -> Iterator[None]:
    """For the block, ``TEST_CONFIG`` takes the place of ``CONFIG``."""
    forget_layers()
    _CONFIGURED.testing = True
    try:
        yield
    finally:
        _CONFIGURED.testing = False
        forget_layers()


def after_commit(work: Callable[[], object], using: str | None) -> None:
    """Do it when Django's transaction is committed; an error is then logged, for what was committed stays so."""
    from django.db import transaction

    def send_after_commit() -> None:  # a partial has no name, which Django wants to log
        work()

    transaction.on_commit(send_after_commit, using=using, robust=True)
