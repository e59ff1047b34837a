"""CHANNEL_LAYERS and INSTALLED_APPS."""

import pytest

from trichannels.layers.configured import RENAMED

from .pairs import becomes, left, stays

pytestmark = pytest.mark.once
STATICS = "django.contrib.staticfiles"


@pytest.mark.parametrize("old", RENAMED)
@pytest.mark.parametrize("quote", ["'", '"', '"""'])
def test_backends(old: str, quote: str) -> None:
    layers = "CHANNEL_LAYERS = {{'default': {{'BACKEND': {}, 'CONFIG': {{'hosts': [1]}}}}}}  # layers\n"
    becomes(layers.format(quote + old + quote), layers.format(quote + RENAMED[old] + quote), "settings.py")


def test_a_backend_that_is_not_here_is_listed() -> None:
    source = "CHANNEL_LAYERS = {\n    'default': {'BACKEND': 'channels_rabbitmq.core.RabbitmqChannelLayer'},\n}\n"
    (line,) = stays(source, "settings.py")
    assert line.startswith("2: BACKEND 'channels_rabbitmq.core.RabbitmqChannelLayer': use trichannels.layers.redis.")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('["daphne", "channels", "a"]', '["trichannels.django", "a"]'),
        ('["daphne", "a"]', '["trichannels.django", "a"]'),
        ('["channels"]', '["trichannels.django"]'),
        ("['channels']", "['trichannels.django']"),
        ('("channels",)', '("trichannels.django",)'),
        ('("a", "daphne", "channels",)', '("a", "trichannels.django",)'),
        ('["a", "channels.apps.ChannelsConfig"]', '["a", "trichannels.django"]'),
        (f'["a", "{STATICS}", "channels"]', f'["a", "trichannels.django", "{STATICS}"]'),
        (f'["a", "{STATICS}", "daphne"]', f'["a", "trichannels.django", "{STATICS}"]'),
        ('["trichannels.django", "channels"]', '["trichannels.django"]'),
        ('["a"] + ["channels"]', '["a"] + ["trichannels.django"]'),
        ('["a", *others, "channels", name()]', '["a", *others, "trichannels.django", name()]'),
        ("[]", "[]"),
    ],
)
def test_apps_on_one_line(before: str, after: str) -> None:
    becomes(f"INSTALLED_APPS = {before}\n", f"INSTALLED_APPS = {after}\n", "settings.py")
    becomes(f"INSTALLED_APPS: list[str] = {before}\n", f"INSTALLED_APPS: list[str] = {after}\n", "settings.py")
    becomes(f"settings.configure(INSTALLED_APPS={before})\n", f"settings.configure(INSTALLED_APPS={after})\n")


@pytest.mark.parametrize("comma", [",", ""])
def test_apps_move_with_their_comments(comma: str) -> None:
    before = f"""
        INSTALLED_APPS = [  # all of them
            "daphne",  # serves
            # Django's own
            "django.contrib.auth",  # users
            "django.contrib.staticfiles",  # files

            # not Django's
            "channels",  # sockets
            "chat"{comma}  # ours
            # the end
        ]
        """
    after = f"""
        INSTALLED_APPS = [  # all of them
            # Django's own
            "django.contrib.auth",  # users

            # not Django's
            "trichannels.django",  # sockets
            "django.contrib.staticfiles",  # files
            "chat"{comma}  # ours
            # the end
        ]
        """
    becomes(before, after, "settings.py")


def test_apps_in_several_lists() -> None:
    before = """
        DJANGO_APPS = ["django.contrib.staticfiles"]
        THIRD_PARTY_APPS = [
            "channels",
        ]
        INSTALLED_APPS = DJANGO_APPS + THIRD_PARTY_APPS
        INSTALLED_APPS += ["daphne"]
        INSTALLED_APPS.append("channels")
        """
    after = before.replace('"channels",', '"trichannels.django",').replace('"daphne"', '"trichannels.django"')
    becomes(before, after, "settings.py")
    first, second = left(before, "settings.py")
    assert first.startswith("3: INSTALLED_APPS: put 'trichannels.django' before 'django.contrib.staticfiles'")
    assert second.startswith("7: INSTALLED_APPS.append: it is 'trichannels.django' now")


def test_other_lists_stay() -> None:
    assert stays('LOGGERS = ["channels", "daphne"]\nloggers = {"channels": {}, "daphne": {}}\n', "settings.py") == []


def test_apps_without_brackets() -> None:
    becomes(f'APPS = "a", "{STATICS}", "channels"\n', f'APPS = "a", "trichannels.django", "{STATICS}"\n', "settings.py")


def test_comments_between_elements_of_one_line_stay_valid() -> None:
    before = f"""
        INSTALLED_APPS = ["a", "{STATICS}",  # files
            "b", "channels",  # sockets
        ]
        """
    after = f"""
        INSTALLED_APPS = ["a", "trichannels.django",  # sockets
            "{STATICS}",  # files
            "b",
        ]
        """
    becomes(before, after, "settings.py")
