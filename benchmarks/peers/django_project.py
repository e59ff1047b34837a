"""A small Django project on PostgreSQL, the same for all who serve it. The environment says how large.

POSTGRES_PORT, LANES (of trichannels), MIDDLEWARE (anything: five stock ones, and a page that the ORM gets), POOL
(anything: connections come from Django's pool, instead of lasting a minute in each thread).
"""

import os
from typing import Any

import django
from django.conf import settings
from django.db import connection
from django.http import HttpResponse
from django.urls import path

TEXT = "a page that never changes."
STOCK = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
STOCK_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
WHOLE = "MIDDLEWARE" in os.environ
DATABASE = {
    "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": os.environ.get("POSTGRES_PORT", ""),
    "USER": "postgres", "NAME": "postgres",
    **({"OPTIONS": {"pool": True}} if "POOL" in os.environ else {"CONN_MAX_AGE": 60}),
}  # fmt: skip


def set_up(*apps: str) -> None:
    """Make the project known to Django."""
    settings.configure(
        DATABASES={"default": DATABASE}, MIDDLEWARE=STOCK if WHOLE else [], ROOT_URLCONF=__name__,
        INSTALLED_APPS=[*apps, *(STOCK_APPS if WHOLE else [])], ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50,
        TRICHANNELS={"LANES": int(os.environ.get("LANES", "10"))},
    )  # fmt: skip
    django.setup()


def page(request: Any) -> Any:
    """A request with one query."""
    return HttpResponse(_by_orm() if WHOLE else _by_hand(), content_type="text/plain")


def _by_hand() -> str:
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)
    return TEXT


def _by_orm() -> str:
    from benchmarks.peers.django_models import Page  # Django must be set up by then

    return str(Page.objects.get(pk=1).text)


def pause() -> None:
    """A query of 20 ms."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_sleep(0.02)")


urlpatterns = [path("", page)]
