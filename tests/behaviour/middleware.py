"""Middleware of one's own, and which origins may open a socket."""

# mypy: allow-subclassing-any

from typing import Any

from .library import as_json, told, told_at_once
from .rows import documented_at

behaviour = documented_at("topics/security.html#websockets")
AUTH = "https://channels.readthedocs.io/en/latest/topics/authentication.html#custom-authentication"
SECURITY = ""


def _asking(lib: Any) -> Any:
    class Consumer(lib.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await self.send(as_json(self.scope.get("token")))

    return Consumer.as_asgi()


@behaviour(
    AUTH,
    "Middleware is a class that wraps an application, and gives it a scope with more in it",
    same="of /a/",
)
async def a_class_of_ones_own(lib: Any) -> Any:
    class Token:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            scope["token"] = f"of {scope['path']}"
            await self.app(scope, receive, send)

    async with lib.socket(Token(_asking(lib)), "/a/") as client:
        return await client.receive_json_from()


@behaviour(
    AUTH, "`BaseMiddleware` hands on a copy of the scope: what is changed inside stays there", same=[None, "inside"]
)
async def the_base_class(lib: Any) -> Any:
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        scope["token"] = "inside"
        seen.append(scope["token"])

    scope: dict[str, Any] = {"type": "test"}
    await lib.BaseMiddleware(inner)(scope, None, None)
    return [scope.get("token"), *seen]


@behaviour(
    "https://channels.readthedocs.io/en/latest/topics/authentication.html#django-authentication",
    "Subclasses of `AuthMiddleware` may override `populate_scope()` and `resolve_scope()`",
    theirs="made",
    ours="ValueError",
    different="such a class is refused where it is made, for nobody calls these here. Change the scope in `__call__()`",
)
def methods_of_auth_middleware(lib: Any) -> Any:
    def make() -> str:
        class Token(lib.AuthMiddleware):
            async def resolve_scope(self, scope: Any) -> None:
                """Do something."""

        return "made" if Token.__name__ else ""

    return told_at_once(make)


async def _comes_in(lib: Any, validator: Any, origin: str | None) -> Any:
    headers = [] if origin is None else [(b"origin", origin.encode())]
    async with lib.opened(), lib.client(validator, headers=headers) as client:
        return (await client.connect())[0]


async def _let_in(lib: Any, allowed: list[str], *origins: str | None) -> Any:
    validator = lib.OriginValidator(lib.AsyncWebsocketConsumer.as_asgi(), allowed)
    return [await _comes_in(lib, validator, origin) for origin in origins]


@behaviour(
    SECURITY,
    "`OriginValidator` lets in sockets from the hosts that are named, with any scheme and port",
    same=[True, True, False, False],
)
async def a_host(lib: Any) -> Any:
    origins = "http://good.example", "https://good.example:8000", "http://sub.good.example", "http://bad.example"
    return await _let_in(lib, ["good.example"], *origins)


@behaviour(SECURITY, "A dot in front of a host allows its subdomains, too", same=[True, True, False])
async def subdomains(lib: Any) -> Any:
    origins = "http://good.example", "http://sub.good.example", "http://notgood.example"
    return await _let_in(lib, [".good.example"], *origins)


@behaviour(
    SECURITY,
    "A whole origin holds for its scheme and port; without a port, for the usual one",
    same=[True, True, False, False],
)
async def a_whole_origin(lib: Any) -> Any:
    origins = "http://good.example", "http://good.example:80", "https://good.example", "http://good.example:8000"
    return await _let_in(lib, ["http://good.example"], *origins)


@behaviour(SECURITY, "`*` lets everybody in, also without an origin", same=[True, True])
async def everybody(lib: Any) -> Any:
    return await _let_in(lib, ["*"], "http://bad.example", None)


@behaviour(SECURITY, "Without an Origin header nobody comes in", same=[False])
async def no_origin(lib: Any) -> Any:
    return await _let_in(lib, ["good.example"], None)


@behaviour(
    SECURITY,
    "A host with a port, and without a scheme",
    theirs=[False, False],
    ours=[True, False],
    better="lets in who comes from that port; Channels lets nobody in",
)
async def a_host_with_a_port(lib: Any) -> Any:
    return await _let_in(lib, ["good.example:8000"], "http://good.example:8000", "http://good.example:9000")


@behaviour(
    SECURITY,
    "Two Origin headers",
    theirs=[True],
    ours=[False],
    better="nobody comes in who sends several; Channels takes the last one",
)
async def two_origins(lib: Any) -> Any:
    validator = lib.OriginValidator(lib.AsyncWebsocketConsumer.as_asgi(), ["good.example"])
    headers = [(b"origin", b"http://bad.example"), (b"origin", b"http://good.example")]
    async with lib.opened(), lib.client(validator, headers=headers) as client:
        return [(await client.connect())[0]]


@behaviour(SECURITY, "An `OriginValidator` around anything but WebSockets is a `ValueError`", same="ValueError")
async def not_a_socket(lib: Any) -> Any:
    validator = lib.OriginValidator(lib.AsyncWebsocketConsumer.as_asgi(), ["*"])
    async with lib.scope(validator, {"type": "http", "path": "/", "headers": []}) as client:
        return await told(client.wait())


@behaviour(SECURITY, "`AllowedHostsOriginValidator` takes the hosts of `ALLOWED_HOSTS`", same=[True, False])
async def allowed_hosts(lib: Any) -> Any:
    validator = lib.AllowedHostsOriginValidator(lib.AsyncWebsocketConsumer.as_asgi())
    return [await _comes_in(lib, validator, origin) for origin in ("http://good.example", "http://bad.example")]


@behaviour(
    SECURITY,
    "With `DEBUG` and no `ALLOWED_HOSTS` it lets in what comes from this machine",
    same=[True, True, True, False],
)
async def allowed_hosts_while_developing(lib: Any) -> Any:
    from django.test import override_settings

    origins = "http://localhost:8000", "http://127.0.0.1:8000", "http://[::1]:8000", "http://bad.example"
    with override_settings(DEBUG=True, ALLOWED_HOSTS=[]):
        validator = lib.AllowedHostsOriginValidator(lib.AsyncWebsocketConsumer.as_asgi())
        return [await _comes_in(lib, validator, origin) for origin in origins]
