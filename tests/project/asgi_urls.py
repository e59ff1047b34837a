"""Views that show what a request was, and answer in every way there is. For ``test_as_django.py``."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from http import HTTPStatus
from io import BytesIO
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.db import connection
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotModified,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path, reverse
from django.utils import translation
from django.utils.decorators import async_only_middleware, sync_and_async_middleware, sync_only_middleware

events: list[str] = []
"""What happened, in its order. Appended to from any thread."""
requests: list[Any] = []
go = threading.Event()
"""Set by a test to let a view go on."""
barrier = threading.Barrier(2)

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def mirror(request: Any, rest: str = "") -> JsonResponse:
    requests.append(request)
    meta = {key: value for key, value in request.META.items() if key.isupper() and isinstance(value, str)}
    files = {name: [type(file).__name__, file.name, file.read().decode()] for name, file in request.FILES.items()}
    return JsonResponse({
        "method": request.method, "path": request.path, "path_info": request.path_info, "meta": meta,
        "headers": dict(request.headers), "cookies": request.COOKIES, "get": dict(request.GET.lists()),
        "post": dict(request.POST.lists()), "files": files,
        "body": None if request.content_type in FORMS else request.body.decode("latin1"),
        "scheme": request.scheme, "secure": request.is_secure(), "uri": request.build_absolute_uri(),
    })  # fmt: skip


async def mirror_async(request: Any) -> JsonResponse:
    return mirror(request)


def lines(request: HttpRequest) -> JsonResponse:
    return JsonResponse([str(line, "utf8") for line in request], safe=False)


def untouched(request: Any) -> HttpResponse:
    requests.append(request)
    return HttpResponse(status=204)


# ---- where it is


def where(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.path} {request.path_info} {reverse('where')}")


async def where_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.path} {request.path_info} {reverse('where')}")


async def where_streamed(request: HttpRequest) -> StreamingHttpResponse:
    translation.activate("de")

    async def chunks() -> AsyncIterator[str]:
        yield f"{reverse('where')} {translation.get_language()}"
        yield f" {await sync_to_async(reverse)('where')} {await sync_to_async(translation.get_language)()}"

    return StreamingHttpResponse(chunks())


# ---- answers


class Counted(HttpResponse):  # type: ignore[misc, unused-ignore]
    def close(self) -> None:
        events.append("closed")
        super().close()


class CountedStream(StreamingHttpResponse):  # type: ignore[misc, unused-ignore]
    def close(self) -> None:
        events.append("closed")
        super().close()


class CountedFile(FileResponse):  # type: ignore[misc, unused-ignore]
    def close(self) -> None:
        events.append("closed")
        super().close()


def sized(request: HttpRequest) -> HttpResponse:
    return Counted(bytes(int(request.GET["size"])))


def sized_stream(request: HttpRequest) -> StreamingHttpResponse:
    return CountedStream(iter([b"a", b"", bytes(int(request.GET["size"]))]))


async def sized_async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"a", b"", bytes(int(request.GET["size"]))):
            yield chunk

    return CountedStream(chunks())


class Tracked(BytesIO):
    def close(self) -> None:
        if not self.closed:
            events.append("file closed")
        super().close()


def sized_file(request: HttpRequest) -> FileResponse:
    return CountedFile(Tracked(bytes(int(request.GET["size"]))), filename="a.txt")


async def sized_file_async(request: HttpRequest) -> FileResponse:
    return sized_file(request)


def status(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"" if "empty" in request.GET else b"some", status=int(request.GET["status"]))


def not_modified(request: HttpRequest) -> HttpResponse:
    return HttpResponseNotModified(headers={"ETag": '"a"'})


def enumerated(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=HTTPStatus.ACCEPTED)


def headers(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("ok", content_type="text/plain")
    response["X-Latin"] = "café"
    response["X-Wide"] = "→"
    response.set_cookie("a", "café", path="/ä")
    response.set_cookie("b", "2", secure=True, samesite="Lax")
    response.delete_cookie("c")
    return response


def header_with_newline(request: HttpRequest) -> HttpResponse:
    return HttpResponse(headers={"X-Bad": "a\nb"})


def unsendable(request: HttpRequest) -> HttpResponse:
    response = Counted("ok")
    response.set_cookie("a", "1", path="/→")
    return response


def nothing(request: HttpRequest) -> None:
    return None


def not_awaited(request: HttpRequest) -> Any:
    async def answer() -> HttpResponse:
        return HttpResponse("never")

    requests.append(answer())
    return requests[-1]


def redirect(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/mirror/")


# ---- errors

ERRORS: dict[str, BaseException] = {
    "value": ValueError("in the view"),
    "missing": Http404("no such thing"),
    "denied": PermissionDenied("not you"),
    "suspicious": SuspiciousOperation("go away"),
    "bad": BadRequest("malformed"),
    "cancelled": asyncio.CancelledError("by itself"),
    "timeout": TimeoutError("of its own"),
}


def fail(request: HttpRequest) -> HttpResponse:
    raise ERRORS[request.GET["with"]]


async def fail_async(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    raise ERRORS[request.GET["with"]]


async def cancelled_child(request: HttpRequest) -> HttpResponse:
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task
    return HttpResponse("never")


def fail_in_stream(request: HttpRequest) -> StreamingHttpResponse:
    def chunks() -> Iterator[str]:
        yield "begun"
        raise ERRORS[request.GET["with"]]

    return CountedStream(chunks())


async def fail_in_async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[str]:
        yield "begun"
        raise ERRORS[request.GET["with"]]

    return CountedStream(chunks())


def custom_404(request: HttpRequest, exception: Exception) -> HttpResponse:
    return HttpResponse(f"nothing at {request.path}", status=404)


handler404 = custom_404


# ---- threads


def loopless(request: HttpRequest) -> HttpResponse:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return HttpResponse(threading.current_thread().name)
    return HttpResponse("a loop runs here")


def meet(request: HttpRequest) -> HttpResponse:
    barrier.wait(10)
    return HttpResponse(threading.current_thread().name)


async def meet_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{await sync_to_async(meet_here)()}")


def meet_here() -> str:
    barrier.wait(10)
    return threading.current_thread().name


def in_transaction(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(connection.in_atomic_block))


async def in_transaction_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("never")


# ---- who leaves


def read_late(request: HttpRequest) -> HttpResponse:
    events.append("begun")
    go.wait(10)
    events.append(f"read {request.body!r}")
    return Counted("ok")


async def wait(request: HttpRequest) -> HttpResponse:
    events.append("begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        events.append(f"cancelled {request.body!r}")
        raise
    return HttpResponse("never")


async def wait_and_answer(request: HttpRequest) -> HttpResponse:
    events.append("begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        events.append("cancelled")
    return Counted("in spite of it")


async def wait_in_many(request: HttpRequest) -> HttpResponse:
    async def part(name: str) -> None:
        try:
            events.append(f"{name} begun")
            await asyncio.sleep(60)
        finally:
            events.append(f"{name} ended")

    async with asyncio.TaskGroup() as group:
        group.create_task(part("a"))
        group.create_task(part("b"))
    return HttpResponse("never")


async def wait_in_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[str]:
        try:
            events.append("begun")
            await asyncio.sleep(60)
            yield "never"
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        finally:
            await sync_to_async(one_query)()  # which cleaning up may do, though the client has left
            events.append("stream ended")

    return CountedStream(chunks())


async def stubborn_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[str]:
        try:
            events.append("begun")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            events.append("cancelled")
        try:
            while True:
                yield "more"
        finally:
            await asyncio.sleep(0.001)
            events.append("stream ended")

    return CountedStream(chunks())


async def failing_cleanup(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[str]:
        try:
            events.append("begun")
            await asyncio.sleep(60)
            yield "never"
        finally:
            raise ERRORS["value"]

    return CountedStream(chunks())


def one_query() -> None:
    with connection.cursor() as cursor:
        cursor.execute("select 1")


def wait_in_sync_stream(request: HttpRequest) -> StreamingHttpResponse:
    def chunks() -> Iterator[str]:
        try:
            yield "one"
            events.append("begun")
            go.wait(10)
            while True:
                yield "more"
        finally:
            events.append("stream ended")

    return CountedStream(chunks())


async def endless(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[str]:
        try:
            while True:
                events.append("made")
                yield "x" * 1000
        finally:
            events.append("stream ended")

    return CountedStream(chunks())


async def stream_until(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[str]:
        yield "one"
        while not go.is_set():
            await asyncio.sleep(0.001)
        yield "two"

    return CountedStream(chunks())


def hold_lane(request: HttpRequest) -> HttpResponse:
    events.append("lane held")
    go_lane.wait(10)
    return HttpResponse("done")


go_lane = threading.Event()

# ---- middleware


def noted(name: str, get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @wraps(get_response)
    def middleware(request: Any) -> Any:
        events.append(f"{name} in")
        response = get_response(request)
        events.append(f"{name} out")
        return response

    return middleware


def noted_async(name: str, get_response: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    @wraps(get_response)
    async def middleware(request: Any) -> Any:
        events.append(f"{name} in")
        response = await get_response(request)
        events.append(f"{name} out")
        return response

    return middleware


@sync_only_middleware  # type: ignore[untyped-decorator, unused-ignore]
def sync_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return noted("sync", get_response)


@async_only_middleware  # type: ignore[untyped-decorator, unused-ignore]
def async_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return noted_async("async", get_response)


@sync_and_async_middleware  # type: ignore[untyped-decorator, unused-ignore]
def both_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return (noted_async if iscoroutinefunction(get_response) else noted)("both", get_response)


class Hooked:
    """With hooks around the view."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        events.append(f"process_view {view.__name__}")

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        events.append(f"process_exception {exception}")
        return HttpResponse("mended") if "mend" in request.GET else None


urlpatterns = [
    path("", loopless),
    path("mirror/", mirror),
    path("mirror/<str:rest>/", mirror),
    path("mirror-async/", mirror_async),
    path("lines/", lines),
    path("untouched/", untouched),
    path("where/", where, name="where"),
    path("async/", where_async),
    path("where-streamed/", where_streamed),
    path("way/", where),
    path("sized/", sized),
    path("sized-stream/", sized_stream),
    path("sized-async-stream/", sized_async_stream),
    path("sized-file/", sized_file),
    path("sized-file-async/", sized_file_async),
    path("status/", status),
    path("not-modified/", not_modified),
    path("enumerated/", enumerated),
    path("headers/", headers),
    path("header-with-newline/", header_with_newline),
    path("unsendable/", unsendable),
    path("nothing/", nothing),
    path("not-awaited/", not_awaited),
    path("redirect/", redirect),
    path("fail/", fail),
    path("fail-async/", fail_async),
    path("cancelled-child/", cancelled_child),
    path("fail-in-stream/", fail_in_stream),
    path("fail-in-async-stream/", fail_in_async_stream),
    path("loopless/", loopless),
    path("meet/", meet),
    path("meet-async/", meet_async),
    path("in-transaction/", in_transaction),
    path("in-transaction-async/", in_transaction_async),
    path("read-late/", read_late),
    path("wait/", wait),
    path("wait-and-answer/", wait_and_answer),
    path("wait-in-many/", wait_in_many),
    path("wait-in-stream/", wait_in_stream),
    path("wait-in-sync-stream/", wait_in_sync_stream),
    path("stubborn-stream/", stubborn_stream),
    path("failing-cleanup/", failing_cleanup),
    path("endless/", endless),
    path("stream-until/", stream_until),
    path("hold-lane/", hold_lane),
]
