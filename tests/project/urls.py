"""Views of every kind."""

import asyncio
import hashlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.core.signals import request_finished, request_started
from django.db import connection
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path, reverse
from django.utils import translation

from trichannels.db import database_sync_to_async

seen: Counter[str] = Counter()
threads: list[str] = []


def one() -> int:
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        threads.append(threading.current_thread().name)
        return int(cursor.fetchone()[0])


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello {request.GET.get('name', 'you')}, {one()}")


async def hello_async(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(0)
    assert await database_sync_to_async(one)() == 1
    return HttpResponse(f"hello {request.GET.get('name', 'you')}, {await sync_to_async(one)()}")


def told(request: Any) -> JsonResponse:
    meta = {key: value for key, value in request.META.items() if key.isupper() and isinstance(value, str)}
    return JsonResponse({
        "method": request.method, "path": request.path, "meta": meta, "cookies": request.COOKIES,
        "body": request.body.decode("latin1"), "scope": request.scope["type"], "reversed": reverse("told"),
        "uri": request.build_absolute_uri(),
    })  # fmt: skip


def cookies(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("ok", status=201)
    response.set_cookie("a", "1", httponly=True)
    response.set_cookie("b", "2")
    return response


def fail(request: HttpRequest) -> HttpResponse:
    raise ValueError("in the view")


def upload(request: HttpRequest) -> JsonResponse:
    digest, size = hashlib.sha256(), 0
    while chunk := request.read(65536):
        digest.update(chunk)
        size += len(chunk)
    return JsonResponse({"size": size, "digest": digest.hexdigest()})


def form(request: HttpRequest) -> JsonResponse:
    files = {name: file.read().decode() for name, file in request.FILES.items()}
    return JsonResponse({"fields": request.POST.dict(), "files": files})


def download(request: HttpRequest) -> FileResponse:
    return FileResponse(Path(request.GET["file"]).open("rb"))


def numbers(count: int, pause: float) -> Iterator[str]:
    try:
        for number in range(count):
            yield f"{number}\n"
            time.sleep(pause)
    finally:
        seen["sync stream closed"] += 1


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(numbers(int(request.GET["count"]), float(request.GET.get("pause", 0))))


async def numbers_async(count: int, pause: float, query: bool) -> AsyncIterator[str]:
    try:
        for number in range(count):
            ask = sync_to_async(one) if number % 2 else database_sync_to_async(one)
            yield f"{number}{await ask() if query else ''}\n"
            await asyncio.sleep(pause)
    finally:
        seen["async stream closed"] += 1


async def leaving_a_task_behind(request: HttpRequest) -> StreamingHttpResponse:
    async def later() -> None:
        await asyncio.sleep(0.1)
        try:
            await sync_to_async(one)()
        except RuntimeError:
            seen["too late"] += 1

    async def chunks() -> AsyncIterator[str]:
        kept.append(asyncio.create_task(later()))
        yield "done"

    return StreamingHttpResponse(chunks())


kept: list[asyncio.Task[None]] = []


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    chunks = numbers_async(int(request.GET["count"]), float(request.GET.get("pause", 0)), "query" in request.GET)
    return StreamingHttpResponse(chunks)


async def wait(request: HttpRequest) -> HttpResponse:
    seen["waiting"] += 1
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        seen["async view cancelled"] += 1
        raise
    return HttpResponse("never")


def block(request: HttpRequest) -> HttpResponse:
    seen["blocking"] += 1
    time.sleep(float(request.GET["seconds"]))
    seen["blocking over"] += 1
    return HttpResponse("done")


async def language(request: HttpRequest) -> HttpResponse:
    with translation.override("de"):
        return HttpResponse(await sync_to_async(translation.get_language)())


async def loop(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(id(asyncio.get_running_loop())))


def show_seen(request: HttpRequest) -> JsonResponse:
    deadline = time.monotonic() + 5  # what a client that has left began may be ending yet
    while requests.count("started") - requests.count("finished") > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return JsonResponse({**seen, "requests under way": requests.count("started") - requests.count("finished")})


requests: list[str] = []  # what was signalled of them: several threads may add to it at once


def tell(event: str, **_: object) -> None:
    requests.append(event)


request_started.connect(partial(tell, "started"), weak=False, dispatch_uid="started")
request_finished.connect(partial(tell, "finished"), weak=False, dispatch_uid="finished")

urlpatterns = [
    path("hello/", hello),
    path("async/", hello_async),
    path("told/", told, name="told"),
    path("cookies/", cookies),
    path("fail/", fail),
    path("upload/", upload),
    path("form/", form),
    path("download/", download),
    path("stream/", stream),
    path("async-stream/", stream_async),
    path("left-behind/", leaving_a_task_behind),
    path("wait/", wait),
    path("block/", block),
    path("language/", language),
    path("loop/", loop),
    path("seen/", show_seen),
]
