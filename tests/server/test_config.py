"""The options: defaults, what is refused and with which words, and hypercorn's configuration files."""

import math
from pathlib import Path
from typing import Any

import pytest

from trichannels.exceptions import ConfigError
from trichannels.server import ServerConfig
from trichannels.server.config import parse_bind


def test_defaults() -> None:
    config = ServerConfig()
    assert config.binds == ("127.0.0.1:8000",)
    assert (config.ping_interval, config.pong_timeout, config.drain_time) == (20.0, 20.0, 10.0)
    assert config.max_message_size == 1024 * 1024


def test_options_are_laid_over_a_base() -> None:
    base = ServerConfig(bind=("127.0.0.1:1", "unix:/tmp/s"), root_path="/x/")
    config = ServerConfig.from_options({"ping_interval": math.inf, "drain_time": 0}, base)
    assert config.binds == ("127.0.0.1:1", "unix:/tmp/s")
    assert (config.root_path, config.ping_interval, config.drain_time) == ("/x", math.inf, 0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bind": "8000"}, "--bind takes host:port, unix:/path or fd://N, not '8000'"),
        ({"bind": "localhost:http"}, "--bind takes host:port"),
        ({"bind": "localhost:65536"}, "--bind takes host:port"),
        ({"bind": ["unix:"]}, "--bind takes host:port"),
        ({"bind": [8000]}, "--bind takes host:port"),
        ({"bind": ()}, "--bind takes at least one address"),
        ({"ping_interval": 0}, "--ping-interval takes a number of seconds above 0, not 0"),
        ({"pong_timeout": "20"}, "--pong-timeout takes a number of seconds above 0, not '20'"),
        ({"write_timeout": math.nan}, "--write-timeout takes a number of seconds above 0, not nan"),
        ({"drain_time": math.inf}, "--drain-time takes a number of seconds, 0 or more, not inf"),
        ({"max_message_size": 1.5}, "--max-message-size takes a whole number above 0, not 1.5"),
        ({"workers": True}, "--workers takes a whole number above 0, not True"),
        ({"trusted_hops": -1}, "--trusted-hops takes the number of proxies in front"),
        ({"proxy_headers": "all"}, '--proxy-headers takes "legacy" or "modern", not \'all\''),
        ({"root_path": "app"}, "--root-path takes a path that begins with \"/\", not 'app'"),
        ({"access_log": 1}, "--access-log takes the name of a file, not 1"),
        ({"root_path": None}, "--root-path takes a path"),
        ({"certfile": __file__}, "--certfile needs --keyfile as well"),
        ({"keyfile": __file__}, "--keyfile needs --certfile as well"),
        ({"certfile": "/no/such", "keyfile": __file__}, "--certfile /no/such: No such file or directory; give a file"),
        ({"prot": 1}, "--prot is not an option; the options are: access_log, backlog, bind"),
    ],
)
def test_wrong_options_name_themselves_and_the_cure(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ServerConfig.from_options(options)
    assert str(raised.value).startswith(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("bind", "parsed"),
    [
        ("127.0.0.1:0", ("tcp", ("127.0.0.1", 0))),
        ("[::1]:8000", ("tcp", ("::1", 8000))),
        ("unix:/run/x", ("unix", "/run/x")),
        ("fd://3", ("fd", 3)),
    ],
)
def test_bind(bind: str, parsed: object) -> None:
    assert parse_bind(bind) == parsed


def test_hypercorn_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "hypercorn.toml"
    path.write_text(
        'bind = ["127.0.0.1:0", "unix:/tmp/s"]\ngraceful_timeout = 7\naccesslog = "-"\nworkers = 4\n'
        'websocket_ping_interval = 9.5\nh2_max_concurrent_streams = 5\nserver_names = ["a.example"]\npong_timeout = 3\n'
    )
    config = ServerConfig.from_hypercorn_file(str(path), drain_time=2)
    assert config.binds == ("127.0.0.1:0", "unix:/tmp/s")
    assert (config.drain_time, config.access_log, config.workers) == (2, "-", 4)
    assert (config.ping_interval, config.pong_timeout) == (9.5, 3)
    assert config.hypercorn == {"h2_max_concurrent_streams": 5, "server_names": ["a.example"]}


def test_hypercorn_python_file(tmp_path: Path) -> None:
    path = tmp_path / "conf.py"
    path.write_text(
        "import os\nbind = 'localhost:1'\nhelper = 3\nwebsocket_ping_interval = None\nkeep_alive_timeout = 9\n"
    )
    for name in (str(path), f"file:{path}"):
        config = ServerConfig.from_hypercorn_file(name)
        assert config.binds == ("localhost:1",)
        assert (config.keep_alive_timeout, config.ping_interval, config.hypercorn) == (9, 20.0, {})


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.toml", "bind = ", "not valid TOML"),
        ("a.toml", "bnid = 'x'", "hypercorn has no setting 'bnid'"),
        ("a.py", "1/0", "ZeroDivisionError"),
        ("missing.toml", None, "No such file"),
        ("missing.py", None, "No such file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str | None, text: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=text) as raised:
        ServerConfig.from_hypercorn_file(str(path))
    assert "\n" not in str(raised.value)
