"""Where Redis is: URLs, and the forms of channels_redis' ``hosts``, read into endpoints and targets. No I/O.

Errors name the option and what is wrong with it, and repeat no value: a password that is not percent-encoded may turn
up in any part of a URL.
"""

import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, NoReturn, TypeAlias
from urllib.parse import ParseResult, parse_qsl, unquote, urlparse

from ...exceptions import InvalidChannelLayerError

PORT, SENTINEL_PORT = 6379, 26379


@dataclass(frozen=True, slots=True)
class TLS:
    """Whom we believe, and who we are. Files are PEM. Without ``ca_file`` the system's authorities count."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: str | None = field(default=None, repr=False)
    verify: bool = True
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """Return a context for connecting; raises :class:`InvalidChannelLayerError` for files that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                # Without a password, OpenSSL would ask for one at the terminal, and wait.
                context.load_cert_chain(self.cert_file, self.key_file, self.key_password or "")
        except (OSError, ValueError) as error:
            files = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
            raise InvalidChannelLayerError(
                f"the TLS files of the Redis layer cannot be used: {files}: {error}"
            ) from error
        context.check_hostname = self.verify and self.check_hostname
        if not self.verify:
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server: where it listens, and as whom we come."""

    host: str = "localhost"
    port: int = PORT
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: TLS | None = None

    @property
    def label(self) -> str:
        """Its URL, without a password."""
        if self.path is not None:
            return f"unix://{self.path}"
        return f"{'redis' if self.tls is None else 'rediss'}://{_host(self)}:{self.port}"

    def at(self, host: str, port: int) -> "Endpoint":
        """Return the same in another place."""
        return replace(self, host=host, port=port, path=None)


@dataclass(frozen=True, slots=True)
class Standalone:
    """One server."""

    endpoint: Endpoint

    @property
    def label(self) -> str:
        """For errors."""
        return self.endpoint.label

    @property
    def tls(self) -> set[TLS]:
        """What its connections are encrypted by."""
        return _encryption([self.endpoint])


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The master that some sentinels watch under a name. ``master`` has all but its place."""

    endpoints: tuple[Endpoint, ...]
    master_name: str
    master: Endpoint

    @property
    def label(self) -> str:
        """For errors."""
        return f"redis+sentinel://{_places(self.endpoints)}/{self.master_name}"

    @property
    def tls(self) -> set[TLS]:
        """What its connections are encrypted by."""
        return _encryption([*self.endpoints, self.master])


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, and the nodes that are asked first."""

    endpoints: tuple[Endpoint, ...]

    @property
    def label(self) -> str:
        """For errors."""
        return f"redis+cluster://{_places(self.endpoints)}"

    @property
    def tls(self) -> set[TLS]:
        """What its connections are encrypted by."""
        return _encryption(self.endpoints)


Target: TypeAlias = Standalone | Sentinels | Cluster


def _places(endpoints: Iterable[Endpoint]) -> str:
    return ",".join(f"{_host(endpoint)}:{endpoint.port}" for endpoint in endpoints)


def _host(endpoint: Endpoint) -> str:
    return f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host


def _encryption(endpoints: Iterable[Endpoint]) -> set[TLS]:
    return {endpoint.tls for endpoint in endpoints if endpoint.tls is not None}


# What a query, or a dict of channels_redis, may say of a server: its name there, and ours.
COMMON = {"username": "username", "password": "password", "db": "database"}
TLS_NAMES = {
    "ssl_ca_certs": "ca_file",
    "ssl_certfile": "cert_file",
    "ssl_keyfile": "key_file",
    "ssl_password": "key_password",
    "ssl_cert_reqs": "verify",
    "ssl_check_hostname": "check_hostname",
}
FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
VERIFY = {"none": False, "optional": True, "required": True, "0": False, "1": True, "2": True}
# Options of redis-py that mean nothing here, for we have our own way: taken, without effect.
IDLE = {
    "health_check_interval", "socket_keepalive", "socket_keepalive_options", "socket_timeout", "socket_connect_timeout",
    "socket_read_size", "retry", "retry_on_timeout", "retry_on_error", "max_connections", "timeout", "protocol",
    "client_name", "lib_name", "lib_version", "decode_responses", "encoding", "encoding_errors", "parser_class",
}  # fmt: skip


KNOWN = {*COMMON, *TLS_NAMES, *IDLE, "ssl"}
NO_DATABASE = "names a database, but a cluster has only the database 0"


def parse_url(url: str) -> Target:
    """Read a URL; raises :class:`InvalidChannelLayerError`, which does not show a password."""
    return _Reader(url).target()


def parse_hosts(hosts: object) -> list[Target]:
    """Read the option ``hosts``: a list of URLs, of ``(host, port)`` pairs and of dicts as channels_redis takes them.

    A dict has ``address`` (a URL), or ``host`` and ``port``, or ``path``, or ``sentinels`` and ``master_name``, or
    ``cluster`` (a list of pairs), and options of redis-py for credentials, database and TLS. A dict that names
    neither is taken as channels_redis takes it: its server is on localhost.
    """
    if isinstance(hosts, str | bytes):
        raise InvalidChannelLayerError("hosts must be a list of servers, even if there is only one (or use url=…)")
    if isinstance(hosts, Mapping) or not isinstance(hosts, Iterable) or not (entries := list(hosts)):
        raise InvalidChannelLayerError("hosts must be a list that names at least one server")
    return [_target(entry, f"hosts[{index}]") for index, entry in enumerate(entries)]


def _target(entry: object, where: str) -> Target:
    if isinstance(entry, str):
        return _Reader(entry, where).target()
    if isinstance(entry, Mapping):
        return _from_dict(dict(entry), where)
    if isinstance(entry, tuple | list):
        return Standalone(Endpoint(*_place(entry, where)))
    raise _wrong(where, f"must be a URL, a (host, port) pair or a dict, not {type(entry).__name__}")


def _from_dict(entry: dict[Any, Any], where: str) -> Target:
    kinds = [name for name in ("address", "path", "unix_socket_path", "sentinels", "cluster") if name in entry]
    if len(kinds) > 1 or (kinds and ("host" in entry or "port" in entry)):
        _refuse(where, f"says in more than one way where its server is: {', '.join([*kinds, 'host'])}")
    if "address" in entry:
        address = entry.pop("address")
        if not isinstance(address, str):
            _refuse(where, "has an 'address' that is no URL")
        return _Reader(address, where, entry).target()
    if "sentinels" in entry:
        return _sentinels(entry, where)
    cluster = entry.pop("cluster", None)
    path = entry.pop("path", entry.pop("unix_socket_path", None))
    if path is not None and not isinstance(path, str | PathLike):
        _refuse(where, "has a path that is none")
    place = _place((entry.pop("host", "localhost"), entry.pop("port", PORT)), where)
    endpoint = _with_options(Endpoint(*place, path=None if path is None else str(path)), entry, where)
    if cluster is None:
        return Standalone(endpoint)
    if not isinstance(cluster, list | tuple) or not cluster:
        _refuse(where, "has a 'cluster' that is no list of (host, port) pairs")
    if endpoint.database:
        _refuse(where, NO_DATABASE)
    return Cluster(tuple(endpoint.at(*_place(node, where)) for node in cluster))


def _sentinels(entry: dict[Any, Any], where: str) -> Sentinels:
    places, name = entry.pop("sentinels"), entry.pop("master_name", None)
    if not isinstance(name, str) or not name:
        _refuse(where, "has 'sentinels' but no 'master_name'")
    if not isinstance(places, list | tuple) or not places:
        _refuse(where, "has 'sentinels' that are no list of (host, port) pairs")
    own = dict(entry.pop("sentinel_kwargs", None) or {})
    sentinel = _with_options(Endpoint(), own, f"{where}['sentinel_kwargs']")
    master = _with_options(Endpoint(), entry, where)
    return Sentinels(tuple(sentinel.at(*_place(place, where)) for place in places), name, master)


def _place(pair: object, where: str) -> tuple[str, int]:
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str) or not pair[0]:
        _refuse(where, "must say where a server is as (host, port)")
    host, port = pair
    if "@" in host or "/" in host:
        _refuse(where, "has a URL in place of a host: write it without a port beside it")
    if isinstance(port, str) and port.isascii() and port.isdigit():
        port = int(port)
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        _refuse(where, "has a port that is none: it must be a number from 1 to 65535")
    return host, port


def _with_options(endpoint: Endpoint, options: Mapping[Any, Any], where: str) -> Endpoint:
    """Add what redis-py's options say; raises for what it does not know."""
    found: dict[str, Any] = {}
    tls: dict[str, Any] = {}
    encrypted = endpoint.tls is not None
    for name, value in options.items():
        if name in COMMON:
            found[COMMON[name]] = value
        elif name in TLS_NAMES and value is None and name != "ssl_cert_reqs":
            continue
        elif name in TLS_NAMES:
            tls[TLS_NAMES[name]] = value
        elif name == "ssl":
            encrypted = _flag(name, value, where) or encrypted
        elif name == "connection_class":
            encrypted = encrypted or "SSL" in getattr(value, "__name__", "")
        elif name not in IDLE:
            _refuse(where, f"has an option that is not known here: {name!r}")
    for name in ("username", "password"):
        if name in found:
            found[name] = _credential(name, found[name], where)
    if "database" in found:
        found["database"] = _database(found["database"], where)
    if (tls or encrypted) and endpoint.path is not None:
        _refuse(where, "asks for TLS on a unix socket, which is not encrypted")
    if tls or encrypted:
        found["tls"] = TLS(**{name: _tls_value(name, value, where) for name, value in tls.items()})
    return replace(endpoint, **found)


def _credential(name: str, value: object, where: str) -> str | None:
    """Return a user or password; an empty one is none, as redis-py has it."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            _refuse(where, f"has a {name} that is not UTF-8")
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        _refuse(where, f"has a {name} that is no text")
    return None if value is None or value == "" else str(value)


def _database(value: object, where: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()):
        _refuse(where, f"has a database that is no number{ENCODE}")
    return int(text)


def _flag(name: str, value: object, where: str) -> bool:
    if str(value).lower() not in FLAGS:
        _refuse(where, f"has an {name!r} that is neither true nor false")
    return FLAGS[str(value).lower()]


def _tls_value(name: str, value: Any, where: str) -> Any:
    if name == "verify":
        if isinstance(value, ssl.VerifyMode):
            return value is not ssl.CERT_NONE
        if str(value).lower() not in VERIFY:  # None means "none", as redis-py has it
            _refuse(where, "has an ssl_cert_reqs that is none of 'none', 'optional' and 'required'")
        return VERIFY[str(value).lower()]
    if name == "check_hostname":
        return _flag("ssl_check_hostname", value, where)
    if name == "key_password":
        return _credential("ssl_password", value, where)
    if not isinstance(value, str | PathLike):
        _refuse(where, "has a TLS file that is no path")
    return str(value)


class _Reader:
    """One URL, and options that stood beside it."""

    def __init__(self, url: str, where: str = "url", options: Mapping[Any, Any] | None = None) -> None:
        self._where, self._options = where, dict(options or {})
        try:
            self._parts: ParseResult = urlparse(url)
        except ValueError:
            _refuse(where, f"is no URL{ENCODE}")

    def target(self) -> Target:
        readers: dict[str, Callable[[], Target]] = {
            "redis": self._standalone,
            "rediss": self._standalone,
            "unix": self._unix,
            "redis+sentinel": self._sentinel,
            "rediss+sentinel": self._sentinel,
            "redis+cluster": self._cluster,
            "rediss+cluster": self._cluster,
        }
        if self._parts.scheme not in readers:
            _refuse(self._where, f"must begin with one of {', '.join(f'{scheme}://' for scheme in readers)}")
        return readers[self._parts.scheme]()

    def _complete(self, endpoint: Endpoint, database: str = "") -> Endpoint:
        """Add credentials, TLS, and what the query says."""
        user, _, _ = self._parts.netloc.rpartition("@")
        name, colon, password = user.partition(":")
        query = parse_qsl(self._parts.query, keep_blank_values=True)
        if self._parts.fragment:
            _refuse(self._where, f"has a '#' in it{ENCODE}")
        if "@" in self._parts.query and not KNOWN.issuperset(name for name, _ in query):
            _refuse(self._where, f"has an '@' behind its '?'{ENCODE}")
        given: dict[Any, Any] = {"db": database} if database else {}
        if name:
            given["username"] = unquote(name)
        if colon:
            given["password"] = unquote(password)
        if self._parts.scheme.startswith("rediss"):
            given["ssl"] = True
        return _with_options(endpoint, {**given, **dict(query), **self._options}, self._where)

    def _places(self, default: int) -> list[tuple[str, int]]:
        places = []
        for each in self._parts.netloc.rpartition("@")[2].split(","):
            try:
                parsed = urlparse(f"//{each}")
                port = default if parsed.port is None else parsed.port
            except ValueError:
                _refuse(self._where, f"has a port that is none: it must be a number from 1 to 65535{ENCODE}")
            places.append(_place((unquote(parsed.hostname or "localhost"), port), self._where))
        return places

    def _standalone(self) -> Standalone:
        places = self._places(PORT)
        if len(places) > 1:
            _refuse(self._where, "names more than one server: redis+sentinel:// or redis+cluster:// do")
        return Standalone(self._complete(Endpoint(*places[0]), self._parts.path.strip("/")))

    def _unix(self) -> Standalone:
        if not self._parts.path or self._parts.netloc.rpartition("@")[2]:
            _refuse(self._where, "names no path: unix:///run/redis.sock, with three slashes")
        return Standalone(self._complete(Endpoint(path=unquote(self._parts.path))))

    def _sentinel(self) -> Sentinels:
        name, _, database = self._parts.path.strip("/").partition("/")
        if not name or "@" in name:
            _refuse(self._where, f"names no master: redis+sentinel://host:26379,host:26379/mymaster{ENCODE}")
        master = self._complete(Endpoint(), database)
        tls = master.tls
        endpoints = tuple(Endpoint(host, port, tls=tls) for host, port in self._places(SENTINEL_PORT))
        return Sentinels(endpoints, name, master)

    def _cluster(self) -> Cluster:
        endpoint = self._complete(Endpoint(), self._parts.path.strip("/"))
        if endpoint.database:
            _refuse(self._where, NO_DATABASE)
        return Cluster(tuple(endpoint.at(host, port) for host, port in self._places(PORT)))


ENCODE = " (in a URL, write the special characters of a password percent-encoded: @ is %40, / is %2F, # is %23)"


def _refuse(where: str, problem: str) -> NoReturn:
    # What has led here may have the value in its text, and tracebacks show causes.
    raise _wrong(where, problem) from None


def _wrong(where: str, problem: str) -> InvalidChannelLayerError:
    return InvalidChannelLayerError(f"{where} {problem}")
