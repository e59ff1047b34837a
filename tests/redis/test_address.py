"""Where Redis is: every form of channels_redis' ``hosts``, every scheme of URLs, and errors that show no password."""

import copy
import pickle
import ssl
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as theirs
import trustme
from channels_redis.utils import create_pool, decode_hosts
from cryptography.hazmat.primitives import serialization

from trichannels.exceptions import InvalidChannelLayerError
from trichannels.layers.redis.address import (
    TLS,
    Cluster,
    Endpoint,
    Sentinels,
    Standalone,
    Target,
    parse_hosts,
    parse_url,
)  # fmt: skip

SECRET = "s3cr3t"


def one(entry: object) -> Endpoint:
    """Read one entry of ``hosts`` that is a single server."""
    (target,) = parse_hosts([entry])
    assert isinstance(target, Standalone)
    return target.endpoint


# ---- what channels_redis takes

THEIRS: list[Any] = [
    "redis://localhost",
    "redis://localhost:6380/2",
    "redis://:s3cr3t@h:1",
    "redis://user:s3cr3t@h:1/3",
    "redis://user:p%40ss%2F%23@h",
    "redis://h?db=5",
    "redis://[::1]:7000/1",
    "unix:///run/redis.sock",
    "unix://:s3cr3t@/run/redis.sock?db=1",
    ("h", 1),
    ["h", 1],
    {"address": "redis://h:1"},
    {"address": "redis://h:1", "db": 4, "password": "s3cr3t"},
    {"address": "unix:///run/redis.sock", "db": 4},
    {"host": "h", "port": 1},
    {"host": "h", "port": 1, "db": 2, "username": "u", "password": "s3cr3t"},
    {"host": "h"},
    {"port": 1},
    {"password": "s3cr3t"},
    {"host": "h", "health_check_interval": 30, "socket_keepalive": True, "retry_on_timeout": True},
    {"connection_class": theirs.UnixDomainSocketConnection, "path": "/run/redis.sock", "db": 1},
    {"connection_class": theirs.SSLConnection, "host": "h", "port": 1},
    {"connection_class": theirs.SSLConnection, "host": "h", "ssl_cert_reqs": None, "ssl_ca_certs": "/ca.pem"},
    "rediss://h:1",
    "rediss://h:1?ssl_cert_reqs=none",
    "rediss://h:1?ssl_check_hostname=False",
    {"address": "rediss://h", "ssl_cert_reqs": None},
    {"address": "rediss://h", "ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem"},
    {"address": "rediss://h", "ssl_certfile": "/c.pem", "ssl_keyfile": "/k.pem", "ssl_password": "s3cr3t"},
]


@pytest.mark.parametrize("entry", THEIRS, ids=str)
def test_an_entry_means_what_it_means_to_channels_redis(entry: Any) -> None:
    pool = create_pool(decode_hosts([copy.copy(entry)])[0])
    connection = pool.make_connection() if hasattr(pool, "make_connection") else pool.connection_class()
    ours = one(entry)
    assert (ours.path or None) == getattr(connection, "path", None)
    if ours.path is None:
        assert (ours.host, ours.port) == (connection.host, connection.port)
    assert ours.database == int(connection.db)
    assert (ours.username or None, ours.password or None) == (connection.username or None, connection.password or None)
    assert (ours.tls is not None) == isinstance(connection, theirs.SSLConnection)
    if ours.tls is not None:
        wanted: Any = connection.ssl_context
        assert ours.tls.verify == (wanted.cert_reqs is not ssl.CERT_NONE)
        assert (ours.tls.verify and ours.tls.check_hostname) == wanted.check_hostname
        assert (ours.tls.ca_file, ours.tls.cert_file) == (wanted.ca_certs, wanted.certfile)
        assert (ours.tls.key_file, ours.tls.key_password) == (
            wanted.keyfile,
            pool.connection_kwargs.get("ssl_password"),
        )


def test_sentinels_as_channels_redis_has_them() -> None:
    entry = {
        "sentinels": [("a", 26379), ["b", 26380]], "master_name": "mymaster", "db": 2, "password": SECRET,
        "sentinel_kwargs": {"password": "other"},
    }  # fmt: skip
    (target,) = parse_hosts([entry])
    assert isinstance(target, Sentinels)
    assert target.master_name == "mymaster"
    assert [(each.host, each.port, each.password) for each in target.endpoints] == [
        ("a", 26379, "other"),
        ("b", 26380, "other"),
    ]
    assert (target.master.database, target.master.password) == (2, SECRET)
    assert target.label == "redis+sentinel://a:26379,b:26380/mymaster"
    assert entry["master_name"], "it was ours to read only"


def test_many_servers_in_their_order() -> None:
    targets = parse_hosts(["redis://a", ("b", 2), {"host": "c"}])
    assert [target.label for target in targets] == ["redis://a:6379", "redis://b:2", "redis://c:6379"]


# ---- URLs of our own


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("redis://h", Standalone(Endpoint("h"))),
        ("redis://", Standalone(Endpoint("localhost"))),
        ("REDIS://h/", Standalone(Endpoint("h"))),
        ("redis://u:p@h:1/3", Standalone(Endpoint("h", 1, username="u", password="p", database=3))),
        ("redis://u@h", Standalone(Endpoint("h", username="u"))),
        ("redis://:@h", Standalone(Endpoint("h"))),
        ("redis://u:a:b@h", Standalone(Endpoint("h", username="u", password="a:b"))),
        ("redis://h?socket_timeout=3&health_check_interval=1", Standalone(Endpoint("h"))),
        ("redis://h?username=u&password=p&db=3", Standalone(Endpoint("h", username="u", password="p", database=3))),
        ("redis://h?password=a%40b%3Fc", Standalone(Endpoint("h", password="a@b?c"))),
        ("redis://[::1]:2", Standalone(Endpoint("::1", 2))),
        ("redis://h?ssl=true", Standalone(Endpoint("h", tls=TLS()))),
        ("redis://h?ssl=false", Standalone(Endpoint("h"))),
        ("rediss://h", Standalone(Endpoint("h", tls=TLS()))),
        ("rediss://h?ssl_ca_certs=a&ssl_certfile=c&ssl_keyfile=k", Standalone(Endpoint("h", tls=TLS("a", "c", "k")))),
        ("rediss://h?ssl_cert_reqs=none", Standalone(Endpoint("h", tls=TLS(verify=False)))),
        ("rediss://h?ssl_cert_reqs=2&ssl_check_hostname=no", Standalone(Endpoint("h", tls=TLS(check_hostname=False)))),
        ("unix:///a/b.sock", Standalone(Endpoint(path="/a/b.sock"))),
        ("unix://u:p@/a%20b?db=2", Standalone(Endpoint(path="/a b", username="u", password="p", database=2))),
        ("unix:///a@b.sock", Standalone(Endpoint(path="/a@b.sock"))),
        (
            "redis+sentinel://a,b:2/m",
            Sentinels((Endpoint("a", 26379), Endpoint("b", 2)), "m", Endpoint()),
        ),
        (
            "redis+sentinel://u:p@a/m/4",
            Sentinels((Endpoint("a", 26379),), "m", Endpoint(username="u", password="p", database=4)),
        ),
        ("redis+sentinel://a/m?db=4", Sentinels((Endpoint("a", 26379),), "m", Endpoint(database=4))),
        ("rediss+sentinel://a/m", Sentinels((Endpoint("a", 26379, tls=TLS()),), "m", Endpoint(tls=TLS()))),
        ("redis+cluster://a,b:2", Cluster((Endpoint("a"), Endpoint("b", 2)))),
        ("redis+cluster://u:p@a/0", Cluster((Endpoint("a", username="u", password="p"),))),
        ("rediss+cluster://[::1]:2", Cluster((Endpoint("::1", 2, tls=TLS()),))),
    ],
    ids=str,
)  # fmt: skip
def test_a_url(url: str, target: Target) -> None:
    assert parse_url(url) == target
    assert parse_hosts([url]) == [target]
    assert parse_hosts([{"address": url}]) == [target]


def test_a_dict_of_ours() -> None:
    assert parse_hosts([{"cluster": [("a", 1), ["b", "2"]], "password": "p"}]) == [
        Cluster((Endpoint("a", 1, password="p"), Endpoint("b", 2, password="p")))
    ]
    assert one({"unix_socket_path": "/a"}) == Endpoint(path="/a")
    assert one({"address": "redis://u:p@h/1", "db": 2, "password": "q"}) == Endpoint(
        "h", username="u", password="q", database=2
    )
    assert one({"host": "h", "password": 1234, "username": None}) == Endpoint("h", password="1234")
    assert one({"host": "h", "ssl": True, "ssl_cert_reqs": ssl.CERT_NONE}).tls == TLS(verify=False)
    assert one({"host": "h", "ssl": False, "ssl_ca_certs": None}).tls is None
    assert one({"host": "h", "password": b"p"}) == Endpoint("h", password="p")
    assert one({"address": "rediss://h", "ssl_ca_certs": Path("/ca")}).tls == TLS("/ca")
    assert one({"path": Path("/a")}) == Endpoint(path="/a")
    assert one({}) == Endpoint()


def test_labels_are_urls_that_can_be_read_again() -> None:
    for url in (
        "redis://h:1", "rediss://h:1", "redis://[::1]:1", "unix:///a", "redis+sentinel://[::1]:1,b:2/m",
        "redis+cluster://[::1]:1,b:2",
    ):  # fmt: skip
        assert parse_url(url).label == url
        assert parse_url(parse_url(url).label) == parse_url(url)


# ---- what is wrong


@pytest.mark.parametrize(
    ("hosts", "problem"),
    [
        ("redis://h", "hosts must be a list"),
        (b"redis://h", "hosts must be a list"),
        ({"address": "redis://h"}, "hosts must be a list"),
        (7, "hosts must be a list"),
        ([], "at least one"),
        (None, "at least one"),
        ([None], r"hosts\[0\] must be a URL"),
        (["redis://h", 7], r"hosts\[1\] must be a URL.*not int"),
        (["http://h"], r"hosts\[0\] must begin with one of redis://"),
        (["localhost:6379"], r"hosts\[0\] must begin with"),
        ([""], r"hosts\[0\] must begin with"),
        (["redis://h:port"], r"hosts\[0\].* port"),
        (["redis://h:70000"], r"hosts\[0\].* port"),
        (["redis://h:0"], r"hosts\[0\].* port"),
        (["redis://[::1"], r"hosts\[0\]"),
        (["redis://a,b"], r"hosts\[0\] names more than one"),
        (["redis://h/one"], r"hosts\[0\] has a database that is no number"),
        (["redis://h/-1"], r"hosts\[0\] has a database"),
        (["redis://h/²"], r"hosts\[0\] has a database"),
        (["redis://h?db=x"], r"hosts\[0\] has a database"),
        (["redis://h?colour=red"], r"hosts\[0\] has an option that is not known here: 'colour'"),
        (["redis://h?colour"], r"hosts\[0\] has an option that is not known here"),
        (["redis://h?ssl=perhaps"], r"hosts\[0\] has an? 'ssl'"),
        (["rediss://h?ssl_cert_reqs=perhaps"], r"hosts\[0\].* ssl_cert_reqs"),
        (["rediss://h?ssl_check_hostname=perhaps"], r"hosts\[0\].* 'ssl_check_hostname'"),
        (["unix://"], r"hosts\[0\] names no path"),
        (["unix://run/redis.sock"], r"hosts\[0\].* unix:///"),
        (["unix:///a?ssl=true"], r"hosts\[0\].* TLS"),
        (["redis+sentinel://a"], r"hosts\[0\] names no master"),
        (["redis+sentinel://a/m/x"], r"hosts\[0\] has a database"),
        (["redis+cluster://a/1"], r"hosts\[0\] names a database"),
        (["redis+cluster://a?db=1"], r"hosts\[0\] names a database"),
        ([("h",)], r"hosts\[0\] must say where a server is"),
        ([("h", 1, 2)], r"hosts\[0\] must say where a server is"),
        ([("", 1)], r"hosts\[0\] must say where a server is"),
        ([(1, "h")], r"hosts\[0\] must say where a server is"),
        ([("h", True)], r"hosts\[0\] has a port"),
        ([("h", "x")], r"hosts\[0\] has a port"),
        ([("h", "²")], r"hosts\[0\] has a port"),
        ([("redis://h", 1)], r"hosts\[0\] has a URL in place of a host"),
        ([{"host": "h", "colour": 1}], r"hosts\[0\].*'colour'"),
        ([{"host": "h", 7: 1}], r"hosts\[0\].* 7"),
        ([{"address": 7}], r"hosts\[0\] has an 'address'"),
        ([{"address": "redis://h", "host": "h"}], r"hosts\[0\] says in more than one way"),
        ([{"path": "/a", "port": 1}], r"hosts\[0\] says in more than one way"),
        ([{"path": "/a", "cluster": [("a", 1)]}], r"hosts\[0\] says in more than one way"),
        ([{"sentinels": [("a", 1)]}], r"hosts\[0\].*'master_name'"),
        ([{"master_name": "m"}], r"hosts\[0\].*'master_name'"),
        ([{"sentinels": [], "master_name": "m"}], r"hosts\[0\] has 'sentinels'"),
        ([{"sentinels": ["a:1"], "master_name": "m"}], r"hosts\[0\] must say where a server is"),
        ([{"sentinels": [("a", 1)], "master_name": "m", "sentinel_kwargs": {"x": 1}}], r"\['sentinel_kwargs'\].*'x'"),
        ([{"cluster": []}], r"hosts\[0\] has a 'cluster'"),
        ([{"cluster": "redis://h"}], r"hosts\[0\] has a 'cluster'"),
        ([{"cluster": [("a", 1)], "db": 1}], r"hosts\[0\] names a database"),
        ([{"host": "h", "db": True}], r"hosts\[0\] has a database"),
        ([{"host": "h", "db": 1.5}], r"hosts\[0\] has a database"),
        ([{"host": "h", "password": ["x"]}], r"hosts\[0\] has a password"),
        ([{"host": "h", "password": b"\xff"}], r"hosts\[0\] has a password that is not UTF-8"),
        ([{"host": "h", "ssl_ca_certs": 7}], r"hosts\[0\].* TLS file"),
        ([{"path": 7}], r"hosts\[0\] has a path"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(hosts: Any, problem: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=problem):
        parse_hosts(hosts)


# ---- passwords


@pytest.mark.parametrize(
    "entry",
    [
        f"redis://:{SECRET}#x@h:1/0",
        f"redis://:{SECRET}/x@h:1/0",
        f"redis://:{SECRET}?x@h:1/0",
        f"redis://:x#{SECRET}@h:1/0",
        f"redis://:x/{SECRET}@h:1/0",
        f"redis://:x?{SECRET}@h:1/0",
        f"redis://:1?{SECRET}@h:1/0",
        f"redis://:1?{SECRET}=@h:1/0",
        f"redis://:1/{SECRET}@h:1/0",
        f"redis://:1#{SECRET}@h:1/0",
        f"redis://:[{SECRET}@h:1/0",
        f"redis://:{SECRET}]@h:1/0",
        f"redis://u:{SECRET}@h:port",
        f"http://u:{SECRET}@h",
        f"u:{SECRET}@h:1",
        f"redis+sentinel://u:{SECRET}@a",
        f"redis+cluster://u:{SECRET}@a/5",
        f"unix://u:{SECRET}@",
        f"unix://u:{SECRET}@h/a",
        f"unix://u:x/{SECRET}@h/a?db=y",
        f"redis://u:{SECRET}@h?colour=1",
        {"host": "h", "password": SECRET, "colour": 1},
        {"host": "h", "password": [SECRET]},
        {"host": f"redis://:{SECRET}@h"},
        {"host": "h", "port": SECRET},
        {"address": f"redis://:{SECRET}@h", "host": "h"},
        (f"redis://:{SECRET}@h", 1),
        ("h", SECRET),
        f"{SECRET}://h",
        {"host": "h", "db": SECRET},
        {"host": "h", "ssl_cert_reqs": SECRET},
        ("h", 1, SECRET),
        [f"redis://:{SECRET}@h"],
        {"sentinels": [f"redis://:{SECRET}@h"], "master_name": "m"},
        {"sentinels": [("a", 1)], "master_name": "m", "sentinel_kwargs": {"password": [SECRET]}},
    ],
    ids=str,
)
def test_an_error_never_shows_a_password(entry: Any) -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"hosts\[0\]") as caught:
        parse_hosts([entry])
    error: BaseException | None = caught.value
    while error is not None:  # a traceback would show these too
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_password_is_in_no_repr() -> None:
    for url in (
        f"redis://u:{SECRET}@h", f"unix://u:{SECRET}@/a", f"redis+sentinel://u:{SECRET}@h/m",
        f"rediss+cluster://u:{SECRET}@h?ssl_password={SECRET}",
    ):  # fmt: skip
        target = parse_url(url)
        assert SECRET not in f"{target!r} {target} {target.label} {vars(type(target))}"
        assert pickle.loads(pickle.dumps(target)) == target
    assert Endpoint(password="a") != Endpoint(password="b")


# ---- TLS


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for tls in (TLS(ca_file="/nowhere/ca.pem"), TLS(ca_file=str(junk)), TLS(cert_file=str(junk), verify=False)):
        with pytest.raises(InvalidChannelLayerError, match="TLS files") as caught:
            tls.context()
        assert (tls.ca_file or tls.cert_file or "") in str(caught.value)


def test_an_encrypted_key_is_opened_by_its_password_and_never_asked_for_at_the_terminal(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("h")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encryption = serialization.BestAvailableEncryption(SECRET.encode())
    (tmp_path / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    cert, key_file = str(tmp_path / "cert"), str(tmp_path / "key")
    assert TLS(None, cert, key_file, key_password=SECRET).context().verify_mode is ssl.CERT_REQUIRED
    for wrong in (None, "wrong"):
        with pytest.raises(InvalidChannelLayerError, match="TLS files"):
            TLS(None, cert, key_file, key_password=wrong).context()


def test_whom_we_believe() -> None:
    assert TLS().context().check_hostname
    assert not TLS(check_hostname=False).context().check_hostname
    assert TLS(check_hostname=False).context().verify_mode is ssl.CERT_REQUIRED
    assert TLS(verify=False).context().verify_mode is ssl.CERT_NONE
