"""CHANNEL_LAYERS and INSTALLED_APPS."""

from pathlib import Path
from textwrap import dedent

import pytest

from trichannels.cli import main
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
        ('tuple(["daphne", "channels", "a"])', 'tuple(["trichannels.django", "a"])'),
        (f'["daphne", "{STATICS}"] + ["channels", "a"]', f'["trichannels.django", "{STATICS}"] + ["a"]'),
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
            # serves
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


def test_comments_stay_where_a_list_is_empty_now() -> None:
    before = """
        APPS = COMMON_APPS = ["channels"]
        INSTALLED_APPS = [  # more
            # why
            "daphne",  # serves
        ] + COMMON_APPS
        """
    after = """
        APPS = COMMON_APPS = ["trichannels.django"]
        INSTALLED_APPS = [  # more
            # why
            # serves
        ] + COMMON_APPS
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
    after = before.replace('"channels",', '"trichannels.django",').replace('"daphne"', "")
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


SETTINGS = {
    "base.py": f"""
        DJANGO_APPS = ["daphne", "{STATICS}"]
        THIRD_PARTY_APPS = ("channels", "a")
        INSTALLED_APPS = [*DJANGO_APPS, *THIRD_PARTY_APPS]
        """,
    "dev.py": """
        from .base import *
        INSTALLED_APPS = ["daphne"] + INSTALLED_APPS
        INSTALLED_APPS.extend(["channels", "b"])
        """,
    "dev_of_dev.py": """
        from .dev import INSTALLED_APPS
        INSTALLED_APPS += "channels",
        """,
    "alone.py": """
        from .base import *
        INSTALLED_APPS = ["channels"]
        """,
}
SETTINGS_AFTER = {
    "base.py": f"""
        DJANGO_APPS = ["trichannels.django", "{STATICS}"]
        THIRD_PARTY_APPS = ("a",)
        INSTALLED_APPS = [*DJANGO_APPS, *THIRD_PARTY_APPS]
        """,
    "dev.py": """
        from .base import *
        INSTALLED_APPS = [] + INSTALLED_APPS
        INSTALLED_APPS.extend(["b"])
        """,
    "dev_of_dev.py": """
        from .dev import INSTALLED_APPS
        INSTALLED_APPS += ()
        """,
    "alone.py": """
        from .base import *
        INSTALLED_APPS = ["trichannels.django"]
        """,
}


@pytest.mark.parametrize("names", [["."], sorted(SETTINGS), sorted(SETTINGS, reverse=True)])
def test_our_app_is_once_in_settings_that_build_on_each_other(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in SETTINGS.items():
        (tmp_path / name).write_text(dedent(text))
    for name in names:  # all at once, or one by one
        assert main(["upgrade", name]) == 0
    assert {name: (tmp_path / name).read_text() for name in SETTINGS} == {
        name: dedent(text) for name, text in SETTINGS_AFTER.items()
    }
    assert main(["upgrade", ".", "--check"]) == 0
    assert ", 0 things are left to you" in capsys.readouterr().out


@pytest.mark.parametrize(
    "source",
    [
        "from elsewhere import *\nINSTALLED_APPS += ['channels']\n",
        "import base\nINSTALLED_APPS = base.INSTALLED_APPS + ['channels']\n",
        "from django.conf import settings\noverride(INSTALLED_APPS=[*settings.INSTALLED_APPS, 'channels'])\n",
        "INSTALLED_APPS = [a for a in ['channels'] if a]\n",
        "SETTINGS = {'INSTALLED_APPS': ['channels']}\n",
        "ROOT = environ.list('MY_APPS', default=['channels'])\n",
    ],
)
def test_a_list_of_which_not_all_is_seen_stays_and_is_listed(source: str) -> None:
    (line,) = stays(source, "settings.py")
    assert ": 'channels' in a list of apps: it is 'trichannels.django' now, once in all lists: " in line


def test_parts_that_another_file_puts_together_are_listed() -> None:
    said = stays("DEV_APPS = ['daphne']\nPROD_APPS = ['channels']\n", "settings.py")
    assert [line.partition(" in a list")[0] for line in said] == ["1: 'daphne'", "2: 'channels'"]


def test_our_app_behind_apps_that_are_not_seen_is_listed(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text(f"OTHER_APPS = ['{STATICS}']\n")
    source = "from .base import *\nINSTALLED_APPS = OTHER_APPS\nINSTALLED_APPS += ['channels']\n"
    (line,) = left(source, str(tmp_path / "settings.py"))
    assert line.startswith("3: INSTALLED_APPS: put 'trichannels.django' before 'django.contrib.staticfiles'")
