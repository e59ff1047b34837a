"""System checks: what ``manage.py check`` finds wrong with layers, lanes and databases before anybody connects."""

from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error
from django.db import DatabaseError, connections

from ..exceptions import ConfigError, InvalidChannelLayerError, TrichannelsError
from ..layers.configured import blocking_layer, configurations, make_layers
from ..layers.memory import InMemoryChannelLayer
from .options import Options

NOBODY = "trichannels.check"  # a group that nobody is in

Check = Callable[..., Iterable[CheckMessage]]


def check_options(app_configs: object, **more: object) -> list[CheckMessage]:
    """E007: ``TRICHANNELS`` is wrong."""
    try:
        Options.read()
    except ConfigError as error:
        return [Error(str(error), id="trichannels.E007")]
    return []


def options_or_defaults() -> Options:
    """Return what the settings say; the defaults where that is wrong, which E007 tells."""
    try:
        return Options.read()
    except ConfigError:
        return Options()


def check_layers(app_configs: object, **more: object) -> list[CheckMessage]:
    """E001: ``CHANNEL_LAYERS`` cannot be used as it is."""
    try:
        make_layers()
    except InvalidChannelLayerError as error:
        return [Error(str(error), id="trichannels.E001")]
    return []


def check_application(app_configs: object, **more: object) -> list[CheckMessage]:
    """E002: ``ASGI_APPLICATION`` is no path."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if path is None or (isinstance(path, str) and "." in path):
        return []
    hint = "such as 'mysite.asgi.application'"
    return [
        Error(f"ASGI_APPLICATION must be the path of an application, not {path!r}", hint=hint, id="trichannels.E002")
    ]


def check_other_servers(app_configs: object, **more: object) -> list[CheckMessage]:
    """W001, E003: apps that have the same commands and names."""
    found: list[CheckMessage] = []
    for name in ("channels", "daphne"):
        if apps.is_installed(name):
            found.append(
                checks.Warning(
                    f"{name!r} is in INSTALLED_APPS as well",
                    hint="Both have commands of the same names, and Channels' consumers do not run here: "
                    f"remove {name!r}.",
                    id="trichannels.W001",
                )
            )
    names = [config.name for config in apps.get_app_configs()]
    statics = "django.contrib.staticfiles"
    if statics in names and names.index(statics) < names.index("trichannels.django"):
        found.append(
            Error(
                f"'trichannels.django' comes after {statics!r} in INSTALLED_APPS",
                hint="Put it before: otherwise `runserver` is Django's own, which serves no WebSockets.",
                id="trichannels.E003",
            )
        )
    return found


def check_pools(app_configs: object, **more: object) -> list[CheckMessage]:
    """E004, W002: connection pools that do not fit."""
    found: list[CheckMessage] = []
    options = options_or_defaults()
    lanes = options.LANES + options.HTTP_LANES
    for alias in connections:
        described = connections[alias].settings_dict
        pool = (described.get("OPTIONS") or {}).get("pool")
        if not pool:
            continue
        if described.get("CONN_MAX_AGE") != 0:
            found.append(
                Error(
                    f"DATABASES[{alias!r}] has a pool and CONN_MAX_AGE={described.get('CONN_MAX_AGE')!r}",
                    hint="With a pool, connections go back after each call: set CONN_MAX_AGE to 0. "
                    "Or leave the pool out: lanes keep their connections, and are as many as you say.",
                    id="trichannels.E004",
                )
            )
        size = pool.get("max_size") or pool.get("min_size", 4) if isinstance(pool, dict) else 4
        if size < lanes:
            found.append(
                checks.Warning(
                    f"the pool of DATABASES[{alias!r}] has {size} connections for {lanes} lanes",
                    hint=f"Lanes will wait for each other: let OPTIONS['pool']['max_size'] be {lanes}, or lower "
                    "TRICHANNELS['LANES'] and ['HTTP_LANES'].",
                    id="trichannels.W002",
                )
            )
    return found


def check_memory(app_configs: object, **more: object) -> list[CheckMessage]:
    """E005: a layer that ends at its process, where there are several."""
    processes = options_or_defaults().PROCESSES
    if processes is None or processes == 1:
        return []
    return [
        Error(
            f"CHANNEL_LAYERS[{alias!r}] is in memory, and TRICHANNELS['PROCESSES'] is {processes}",
            hint="Its events end at their own process: use trichannels.layers.redis.RedisChannelLayer.",
            id="trichannels.E005",
        )
        for alias in _in_memory()
    ]


def check_memory_in_production(app_configs: object, **more: object) -> list[CheckMessage]:
    """W003, when deploying: the same, where nothing is said about processes."""
    if settings.DEBUG or options_or_defaults().PROCESSES is not None:
        return []
    return [
        checks.Warning(
            f"CHANNEL_LAYERS[{alias!r}] is in memory: it carries nothing from one process to another",
            hint="Use trichannels.layers.redis.RedisChannelLayer, or say TRICHANNELS = {'PROCESSES': 1}.",
            id="trichannels.W003",
        )
        for alias in _in_memory()
    ]


def _in_memory() -> Iterator[str]:
    try:
        for alias, layer in make_layers().items():
            if isinstance(layer, InMemoryChannelLayer):
                yield alias
    except InvalidChannelLayerError:
        return  # E001 tells


def check_reachable(app_configs: object, **more: object) -> list[CheckMessage]:
    """E006, when deploying: a layer's server that cannot be reached."""
    found: list[CheckMessage] = []
    in_memory = set(_in_memory())
    try:
        aliases = [alias for alias in configurations() if alias not in in_memory]
    except InvalidChannelLayerError:
        return []
    for alias in aliases:
        try:
            blocking_layer(alias).group_send(NOBODY, {"type": NOBODY})
        except TrichannelsError as error:
            hint = "Is its server running, and are CONFIG's hosts right?"
            found.append(Error(f"CHANNEL_LAYERS[{alias!r}]: {error}", hint=hint, id="trichannels.E006"))
    return found


def check_limits(app_configs: object, databases: Iterable[str] | None = None, **more: object) -> list[CheckMessage]:
    """W004, with ``check --database``: fewer connections than lanes."""
    options = options_or_defaults()
    wanted = (options.LANES + options.HTTP_LANES) * (options.PROCESSES or 1)
    found: list[CheckMessage] = []
    for alias in databases or ():
        allowed = _allowed(connections[alias])
        if allowed is not None and wanted > allowed:
            found.append(
                checks.Warning(
                    f"{wanted} lanes may each open a connection to DATABASES[{alias!r}], which allows {allowed}",
                    hint="Raise the server's max_connections, or lower TRICHANNELS['LANES'], ['HTTP_LANES'] or "
                    "['PROCESSES'].",
                    id="trichannels.W004",
                )
            )
    return found


def _allowed(connection: Any) -> int | None:
    """Return how many connections a database gives to ordinary users; None if nobody can say."""
    if connection.vendor != "postgresql":
        return None
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "select current_setting('max_connections')::int"
                " - current_setting('superuser_reserved_connections')::int"
            )
            return int(cursor.fetchone()[0])
    except DatabaseError:
        return None


def check_library(app_configs: object, **more: object) -> list[CheckMessage]:
    """W005: the server is not installed, and ``runserver`` will not run."""
    if find_spec("hypercorn") is not None:
        return []
    hint = "pip install 'trichannels[serve]'"
    return [checks.Warning("the server's libraries are not installed", hint=hint, id="trichannels.W005")]


ALL: list[tuple[Check, dict[str, Any]]] = [
    (check_options, {}),
    (check_layers, {}),
    (check_application, {}),
    (check_other_servers, {}),
    (check_pools, {}),
    (check_memory, {}),
    (check_library, {}),
    (check_memory_in_production, {"deploy": True}),
    (check_reachable, {"deploy": True}),
]
