"""The options: defaults, what is refused and with which words, and hypercorn's configuration files."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from trichannels.exceptions import ConfigError
from trichannels.server import ServerConfig
from trichannels.server.config import parse_bind
from trichannels.server.config_file import HOLDS, NAMES, WITHOUT, _is_setting, hypercorn_config
from trichannels.server.hypercorn_glue import Config


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
        ({"log_level": "loud"}, "--log-level takes debug, info, warning, error or critical, not 'loud'"),
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
        'loglevel = "WARNING"\nworker_class = "trio"\nwebsocket_ping_interval = 9.5\n'
        'h2_max_concurrent_streams = 5\nserver_names = ["a.example"]\npong_timeout = 3\n'
    )
    config = ServerConfig.from_hypercorn_file(str(path), drain_time=2)
    assert config.binds == ("127.0.0.1:0", "unix:/tmp/s")
    assert (config.drain_time, config.access_log, config.workers) == (2, "-", 4)
    assert (config.ping_interval, config.pong_timeout) == (9.5, 3)
    assert config.log_level == "WARNING"
    rest = {"h2_max_concurrent_streams": 5, "server_names": ["a.example"], "worker_class": "trio"}
    assert config.hypercorn == rest


def test_hypercorn_python_file(tmp_path: Path) -> None:
    path = tmp_path / "conf.py"
    path.write_text(
        "import os\nlog = os\ndef from_toml(): pass\nbind = 'localhost:1'\nhelper = 3\n"
        "websocket_ping_interval = None\nkeep_alive_timeout = 9\n"
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
        ("a.toml", "log = 'x'", "hypercorn has no setting 'log'"),
        ("a.toml", "ssl_enabled = true", "hypercorn has no setting 'ssl_enabled'"),
        ("a.toml", "h2_max_concurrent_streams = 'x'", "h2_max_concurrent_streams takes a whole number, not 'x'"),
        ("a.toml", "include_date_header = 0", "include_date_header takes true or false, not 0"),
        ("a.toml", "loglevel = 'loud'", "--log-level takes debug, info"),
        ("hypercorn.conf", "bind = ", "not valid TOML"),
        ("a.py", "raise SystemExit(3)", "SystemExit"),
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("quic_bind", "127.0.0.1:1"), ("read_timeout", 5), ("max_app_queue_size", 50), ("statsd_host", "x:1")),
        *(("worker_class", "uvloop"), ("pid_path", "/run/x"), ("debug", True), ("daemon", False)),
    ],
)
def test_a_setting_of_hypercorn_without_effect_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} has no effect here: take it out of the configuration; ") as raised:
        hypercorn_config(ServerConfig(hypercorn={name: value}), logging.getLogger(), None)
    assert str(raised.value).endswith(WITHOUT[name])


def test_a_setting_without_effect_may_say_what_holds_anyhow() -> None:
    hypercorn_config(ServerConfig(hypercorn={**HOLDS, "quic_bind": []}), logging.getLogger(), None)


HONOURED = """
    access_log_format alpn_protocols alt_svc_headers ca_certs cert_reqs ciphers h11_max_incomplete_size
    h11_pass_raw_headers h2_max_concurrent_streams h2_max_header_list_size h2_max_inbound_frame_size include_date_header
    include_server_header insecure_bind keep_alive_max_requests keyfile_password logconfig logconfig_dict logger_class
    max_requests max_requests_jitter server_names verify_flags verify_mode umask user group
"""


def test_each_setting_of_hypercorn_is_an_option_or_handed_on_or_refused() -> None:
    """A new one in hypercorn belongs into one of these lists."""
    ours = {"bind", "backlog", "certfile", "keyfile", "keep_alive_timeout", "root_path", "shutdown_timeout"}
    ours |= {"startup_timeout", "workers", *NAMES}
    kinds = ours, set(HONOURED.split()), set(WITHOUT)
    known = {name for name in {*dir(Config), *Config.__annotations__} if _is_setting(name)}
    assert set().union(*kinds) == known
    assert sum(map(len, kinds)) == len(known)


def test_a_log_configuration_that_cannot_be_read_shows_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^logconfig: .*") as raised:
        hypercorn_config(ServerConfig(hypercorn={"logconfig": "json:/no/such"}), logging.getLogger(), None)
    assert "\n" not in str(raised.value)
