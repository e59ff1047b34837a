"""Django, set up once for a run of the tests: two databases, the urls and middleware of ``tests.project``."""

import tempfile
from importlib import import_module
from pathlib import Path

import django
from django.conf import settings

from ..ports import free_port

FOLDER = Path(tempfile.mkdtemp(prefix="django-"))
POSTGRES_PORT = free_port()


def configure() -> None:
    """Do it, if nobody has."""
    if settings.configured:
        return
    settings.configure(
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "db.sqlite3", "CONN_MAX_AGE": 60},
            "pg": {
                "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": POSTGRES_PORT,
                "USER": "postgres", "NAME": "postgres", "CONN_MAX_AGE": 60, "OPTIONS": {"application_name": "tests"},
            },
            # The same, with a connection for each call, and with a pool of connections.
            "pg_each": {
                "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": POSTGRES_PORT,
                "USER": "postgres", "NAME": "postgres", "OPTIONS": {"application_name": "tests"},
                "TEST": {"MIRROR": "pg"},
            },
            "pg_pool": {
                "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": POSTGRES_PORT,
                "USER": "postgres", "NAME": "postgres", "TEST": {"MIRROR": "pg"},
                "OPTIONS": {"application_name": "tests", "pool": {"min_size": 1, "max_size": 20}},
            },
        },
        INSTALLED_APPS=[
            "trichannels.django", "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions",
            "django.contrib.staticfiles",
        ],
        STATIC_URL="/static/",
        TRICHANNELS={"RECHECK": 3600},
        MIDDLEWARE=[
            "django.middleware.common.CommonMiddleware",
            "tests.project.middleware.SyncMiddleware",
            "tests.project.middleware.AsyncMiddleware",
        ],
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="tests.project.urls",
        USE_TZ=True,
        TIME_ZONE="UTC",
        LANGUAGES=[("en", "English"), ("de", "German")],
        SECRET_KEY="for tests",
        SESSION_COOKIE_HTTPONLY=True,
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    )  # fmt: skip
    django.setup()
    import_module("tests.project.urls")  # which counts requests from the first one on
