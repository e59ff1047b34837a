"""The pages of the project that scenarios run in."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path


def page(request: HttpRequest) -> HttpResponse:
    """A page of Django's."""
    return HttpResponse(f"a page of {request.path}")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """What ASGI_APPLICATION names."""


urlpatterns: list[Any] = [path("page/", page)]
