"""Where Redis is: URLs, the forms of channels_redis' ``hosts``, and errors that show no password."""

import ssl
import traceback
from pathlib import Path
from typing import Any

import pytest

from trichannels.exceptions import InvalidChannelLayerError
from trichannels.layers.redis.address import (
    TLS,
    Cluster,
    Endpoint,
    Sentinels,
    Standalone,
    parse_hosts,
    parse_url,
)

from ..server.certificates import Certificates

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("redis://", Endpoint()),
        ("redis://h", Endpoint("h")),
        ("redis://h:7/3", Endpoint("h", 7, database=3)),
        ("redis://h:7?db=3", Endpoint("h", 7, database=3)),
        ("redis://[::1]:7", Endpoint("::1", 7)),
        ("redis://:pw@h", Endpoint("h", password="pw")),
        ("redis://me:p%40%2F%23%3A@h", Endpoint("h", username="me", password="p@/#:")),
        ("redis://me:a:b@h", Endpoint("h", username="me", password="a:b")),
        ("redis://me@h", Endpoint("h", username="me")),
        ("redis://:@h", Endpoint("h")),
        ("redis://h?username=me&password=pw", Endpoint("h", username="me", password="pw")),
        ("redis://h?socket_timeout=3&health_check_interval=1", Endpoint("h")),
        ("rediss://h", Endpoint("h", tls=TLS())),
        ("redis://h?ssl=true", Endpoint("h", tls=TLS())),
        (
            "rediss://h?ssl_ca_certs=ca&ssl_certfile=c&ssl_keyfile=k&ssl_check_hostname=false",
            Endpoint("h", tls=TLS("ca", "c", "k", check_hostname=False)),
        ),
        ("rediss://h?ssl_cert_reqs=none", Endpoint("h", tls=TLS(verify=False))),
        ("rediss://h?ssl_cert_reqs=required", Endpoint("h", tls=TLS())),
        ("unix:///run/r.sock", Endpoint(path="/run/r.sock")),
        ("unix://me:pw@/run/r.sock?db=2", Endpoint(path="/run/r.sock", username="me", password="pw", database=2)),
    ],
)
def test_a_url(url: str, endpoint: Endpoint) -> None:
    assert parse_url(url) == Standalone(endpoint)


def test_a_url_of_sentinels() -> None:
    target = parse_url("redis+sentinel://me:pw@a,b:7/mine/2")
    assert target == Sentinels(
        (Endpoint("a", 26379), Endpoint("b", 7)), "mine", Endpoint(username="me", password="pw", database=2)
    )
    assert target.label == "redis+sentinel://a:26379,b:7/mine"
    assert parse_url("redis+sentinel://a/mine?db=2") == Sentinels((Endpoint("a", 26379),), "mine", Endpoint(database=2))


def test_a_url_of_a_cluster() -> None:
    target = parse_url("rediss+cluster://:pw@a,b:7")
    assert target == Cluster(tuple(Endpoint(*place, password="pw", tls=TLS()) for place in (("a", 6379), ("b", 7))))
    assert target.label == "redis+cluster://a:6379,b:7"


@pytest.mark.parametrize(
    ("entry", "target"),
    [
        ("redis://h", Standalone(Endpoint("h"))),
        (("h", 7), Standalone(Endpoint("h", 7))),
        (["h", "7"], Standalone(Endpoint("h", 7))),
        ({"host": "h", "port": 7, "db": 2, "password": "pw"}, Standalone(Endpoint("h", 7, None, None, "pw", 2))),
        ({"host": "h", "password": None, "username": None}, Standalone(Endpoint("h"))),
        ({"host": "h", "password": 123}, Standalone(Endpoint("h", password="123"))),
        ({"host": "h", "password": b"pw"}, Standalone(Endpoint("h", password="pw"))),
        ({}, Standalone(Endpoint())),
        ({"address": "redis://h/1"}, Standalone(Endpoint("h", database=1))),
        ({"address": "redis://h/1", "db": 4, "password": "pw"}, Standalone(Endpoint("h", password="pw", database=4))),
        ({"path": "/s"}, Standalone(Endpoint(path="/s"))),
        ({"unix_socket_path": "/s"}, Standalone(Endpoint(path="/s"))),
        ({"address": "redis://h", "ssl": True, "ssl_ca_certs": Path("/ca")}, Standalone(Endpoint("h", tls=TLS("/ca")))),
        ({"host": "h", "ssl": False, "ssl_ca_certs": None}, Standalone(Endpoint("h"))),
        ({"host": "h", "ssl": True, "ssl_cert_reqs": ssl.CERT_NONE}, Standalone(Endpoint("h", tls=TLS(verify=False)))),
        (
            {"sentinels": [("a", 1), ("b", 2)], "master_name": "m", "password": "pw", "sentinel_kwargs": {"password": "q"}},
            Sentinels((Endpoint("a", 1, password="q"), Endpoint("b", 2, password="q")), "m", Endpoint(password="pw")),
        ),
        ({"cluster": [("a", 1), ("b", 2)]}, Cluster((Endpoint("a", 1), Endpoint("b", 2)))),
    ],
)  # fmt: skip
def test_an_entry_of_hosts(entry: Any, target: object) -> None:
    assert parse_hosts([entry]) == [target]


@pytest.mark.parametrize(
    ("hosts", "problem"),
    [
        ("redis://h", "must be a list"),
        (b"redis://h", "must be a list"),
        ([], "at least one"),
        (None, "at least one"),
        (7, "at least one"),
        ([7], r"hosts\[0\] must be a URL, a \(host, port\) pair or a dict, not int"),
        (["redis://a", ("h",)], r"hosts\[1\] must say where"),
        ([("", 7)], "must say where"),
        ([("h", 0)], "port that is none"),
        ([("h", True)], "port that is none"),
        ([("h", 65536)], "port that is none"),
        ([{"host": "h", "nickname": "x"}], r"hosts\[0\] has an option that is not known here: 'nickname'"),
        ([{"address": "redis://h", "host": "h"}], "more than one way"),
        ([{"address": 7}], "no URL"),
        ([{"path": "/s", "cluster": [("a", 1)]}], "more than one way"),
        ([{"path": "/s", "ssl": True}], "TLS on a unix socket"),
        ([{"sentinels": [("a", 1)]}], "no 'master_name'"),
        ([{"sentinels": [], "master_name": "m"}], "no list"),
        ([{"cluster": []}], "no list"),
        ([{"host": "h", "password": ["x"]}], "password that is no text"),
        ([{"host": "h", "db": "one"}], "database that is no number"),
        ([{"host": "h", "db": -1}], "database that is no number"),
        ([{"host": "h", "ssl_cert_reqs": "maybe"}], "ssl_cert_reqs"),
        ([{"host": "h", "ssl_ca_certs": 7}], "TLS file"),
    ],
)
def test_a_wrong_entry_is_named(hosts: Any, problem: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=problem):
        parse_hosts(hosts)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://h", "must begin with one of redis://"),
        ("h:6379", "must begin with"),
        ("", "must begin with"),
        ("redis://h:x", "port that is none"),
        ("redis://h:0", "port that is none"),
        ("redis://h:99999", "port that is none"),
        ("redis://[::1", "no URL"),
        ("redis://h/x", "no number"),
        ("redis://h/²", "no number"),
        ("redis://a,b", "more than one server"),
        ("redis://h?colour=red", "not known here: 'colour'"),
        ("unix://", "names no path"),
        ("redis+sentinel://a", "names no master"),
        ("redis+cluster://a?db=1", "only the database 0"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, problem: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=problem):
        parse_url(url)


@pytest.mark.parametrize(
    "hosts",
    [
        # a password with a special character that is not encoded gets into any part of a URL
        [f"redis://:{SECRET}/x@h:6379/0"],
        [f"redis://:{SECRET}#x@h"],
        [f"redis://:x#{SECRET}@h"],
        [f"redis://:7/{SECRET}@h/0"],
        [f"redis://:{SECRET}?x@h"],
        [f"redis://:[{SECRET}@h"],
        [f"redis://:{SECRET}@h:port"],
        [f"redis://:{SECRET}@h/one"],
        [f"redis://:{SECRET}@h?colour=red"],
        [f"{SECRET}://h"],
        [(f"redis://:{SECRET}@h", 6379)],
        [("h", 6379, SECRET)],
        [("h", SECRET)],
        [[f"redis://:{SECRET}@h"]],
        [{"host": "h", "password": SECRET, "colour": "red"}],
        [{"host": "h", "db": SECRET}],
        [{"host": "h", "ssl_cert_reqs": SECRET}],
        [{"sentinels": [("h", SECRET)], "master_name": "m"}],
        f"redis://:{SECRET}@h",
    ],
)
def test_no_error_shows_a_password(hosts: Any) -> None:
    with pytest.raises(InvalidChannelLayerError) as caught:
        parse_hosts(hosts)
    assert SECRET not in "".join(traceback.format_exception_only(caught.value))
    seen: BaseException | None = caught.value
    while seen is not None:
        assert SECRET not in str(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


@pytest.mark.parametrize(
    "url",
    [f"redis://me:{SECRET}@h", f"redis+sentinel://:{SECRET}@a/m", f"redis+cluster://:{SECRET}@a", f"unix://:{SECRET}@/s"],
)  # fmt: skip
def test_no_repr_or_label_shows_a_password(url: str) -> None:
    target = parse_url(url)
    assert SECRET not in repr(target) + str(target) + target.label


def test_tls_files(tmp_path: Path) -> None:
    files = Certificates(tmp_path).options
    context = TLS(cert_file=files["certfile"], key_file=files["keyfile"]).context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert not TLS(check_hostname=False).context().check_hostname
    assert TLS(verify=False).context().verify_mode is ssl.CERT_NONE
    for wrong in (TLS(ca_file="/no/such"), TLS(ca_file=files["keyfile"]), TLS(cert_file=files["certfile"])):
        with pytest.raises(InvalidChannelLayerError, match="TLS files"):
            wrong.context()
