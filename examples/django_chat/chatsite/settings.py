"""Settings. The environment may say ``DATABASE=postgresql://user:password@host:port/name`` and ``REDIS=redis://…``."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BASE_DIR = Path(__file__).parent.parent

DEBUG = os.environ.get("DEBUG", "1") == "1"
SECRET_KEY = os.environ.get("SECRET_KEY", "only good enough for a demonstration")
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost 127.0.0.1").split()

INSTALLED_APPS = [
    "trichannels.django",  # before staticfiles: it has a `runserver`, too
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "chat",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "chatsite.urls"
ASGI_APPLICATION = "chatsite.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def database(url: str) -> dict[str, Any]:
    """Return what Django wants to know of a PostgreSQL; SQLite, beside this project, if ``url`` is empty."""
    if not url:
        file = os.environ.get("SQLITE", BASE_DIR / "db.sqlite3")
        options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL", "timeout": 20}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": file, "OPTIONS": options, "CONN_MAX_AGE": None}
    place = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": place.path.lstrip("/"),
        "USER": place.username or "postgres",
        "PASSWORD": place.password or "",
        "HOST": place.hostname or "127.0.0.1",
        "PORT": place.port or 5432,
        "CONN_MAX_AGE": 600,
    }


def channel_layer(url: str) -> dict[str, Any]:
    """Return a layer on Redis; one in memory, for one process, if ``url`` is empty."""
    if not url:
        return {"BACKEND": "trichannels.layers.InMemoryChannelLayer"}
    return {"BACKEND": "trichannels.layers.redis.RedisChannelLayer", "CONFIG": {"url": url}}


DATABASES = {"default": database(os.environ.get("DATABASE", ""))}
CHANNEL_LAYERS = {"default": channel_layer(os.environ.get("REDIS", ""))}

LANGUAGE_CODE = "en-gb"
USE_TZ, TIME_ZONE = True, "UTC"
STATIC_URL = "static/"
LOGIN_URL, LOGIN_REDIRECT_URL, LOGOUT_REDIRECT_URL = "login", "rooms", "login"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
