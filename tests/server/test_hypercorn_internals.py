"""What we lean on in hypercorn that is not its public API. If a test here fails, hypercorn has changed.

The message says which part did; ``trichannels/server/hypercorn_glue.py`` is the file to change.
"""

import inspect
from importlib.metadata import version

import h11
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import WorkerContext


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_version_is_the_one_that_was_read() -> None:
    assert version("hypercorn").startswith("0.18."), "a new minor version: read its protocol/ and trio/"


def test_a_connections_protocol_object_is_made_from_these_ten_things() -> None:
    expected = ["app", "config", "context", "task_group", "state", "ssl", "client", "server", "send", "alpn_protocol"]
    assert parameters(ProtocolWrapper) == expected, "http.py builds the object from these, in this order"
    for protocol in (H11Protocol, H2Protocol):
        assert len(parameters(protocol)) == 9, "the inner protocols took the same without the last"


def test_the_protocol_object_is_driven_by_these_calls_and_events() -> None:
    assert inspect.iscoroutinefunction(ProtocolWrapper.handle), "http.py awaits handle(event)"
    assert inspect.iscoroutinefunction(ProtocolWrapper.initiate), "http.py awaits initiate()"
    assert RawData(b"x").data == b"x", "bytes travel as RawData(data)"
    assert Updated(idle=True).idle is True, "Updated(idle) starts and stops the idle timer"
    assert Closed() == Closed(), "Closed() means that a side is done"


def test_http1_creates_its_streams_in_one_overridable_place() -> None:
    assert parameters(H11Protocol._create_stream) == ["self", "request"], "our subclass catches upgrades there"
    source = inspect.getsource(H11Protocol._handle_events)
    assert "_create_stream" in source, "it is called while events are handled: our exception gets out of handle()"
    assert "self.connection" in inspect.getsource(H11Protocol.__init__), "h11 holds the bytes behind a head"
    assert isinstance(h11.Connection(h11.SERVER).trailing_data, tuple), "h11 gives those bytes as trailing_data[0]"


def test_applications_are_started_by_the_task_group() -> None:
    source = inspect.getsource(inspect.getmodule(H11Protocol))  # type: ignore[arg-type]
    assert "HTTPStream" in source
    from hypercorn.protocol import http_stream, ws_stream

    for module in (http_stream, ws_stream):
        assert "task_group.spawn_app(\n" in inspect.getsource(module), "http.py is that task group"
        assert "app_put" in inspect.getsource(module), "spawn_app returns the function that takes the events"
    assert "message is None" in inspect.getsource(http_stream), "send(None) means that the application has ended"
    assert "task_group.spawn(" in inspect.getsource(H2Protocol), "helpers are started by spawn(function, *arguments)"


def test_the_worker_context_says_whether_the_server_drains() -> None:
    context = WorkerContext(None)
    assert inspect.iscoroutinefunction(context.terminated.set), "serving.py awaits context.terminated.set()"
    assert inspect.iscoroutinefunction(context.terminate.wait), "max_requests sets context.terminate"
    assert "terminated.is_set()" in inspect.getsource(H11Protocol), "HTTP/1.1 closes after the response while draining"
    assert "terminated.is_set()" in inspect.getsource(H2Protocol), "HTTP/2 refuses new streams while draining"


def test_the_configuration_has_the_settings_that_we_set() -> None:
    names = {"errorlog", "accesslog", "certfile", "keyfile", "root_path", "bind", "insecure_bind", "keep_alive_timeout"}
    names |= {"websocket_max_message_size", "websocket_ping_interval", "server_names", "max_requests"}
    assert names <= set(dir(Config)), "hypercorn_glue.hypercorn_config sets them"
    assert parameters(Config().log.atoms) == ["request", "response", "request_time"], "log_access formats with it"
    assert Config().create_ssl_context() is None, "create_ssl_context() is None without a certificate"
