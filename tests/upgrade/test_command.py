"""``trichannels upgrade`` on the command line: what it says, returns, and leaves alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trichannels.cli import main
from trichannels.upgrade.names import NO_COUNTERPART

pytestmark = pytest.mark.once

OLD = "import channels.layers\n\nfrom channels import Group\n"
NEW = "import trichannels.layers\n\nfrom channels import Group\n"
LEFT = f"import Group: {NO_COUNTERPART['channels.Group']}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project, in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "a.py").write_text(OLD)
    (tmp_path / "chat" / "b.py").write_text("x = 1\n")
    (tmp_path / "requirements.txt").write_text("channels\n")
    return tmp_path


def test_it_writes_and_says_what_is_left(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade", "."]) == 0
    assert (here / "chat" / "a.py").read_text() == NEW
    assert (here / "requirements.txt").read_text() == "trichannels[django,serve]\n"
    assert capsys.readouterr().out == f"chat/a.py:3: from channels {LEFT}\n2 files changed, 1 thing is left to you\n"


def test_a_second_run_changes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["upgrade", "."])
    before = {path: path.stat().st_ino for path in here.rglob("*")}
    capsys.readouterr()
    assert main(["upgrade", ".", "--check"]) == 0
    assert main(["upgrade", "."]) == 0
    assert {path: path.stat().st_ino for path in here.rglob("*")} == before
    assert "\n0 files changed, 1 thing is left to you\n" in capsys.readouterr().out


def test_check_changes_nothing_and_exits_with_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade", ".", "--check"]) == 1
    assert (here / "chat" / "a.py").read_text() == OLD
    assert capsys.readouterr().out.endswith("\n2 files would change, 1 thing is left to you\n")
    assert main(["upgrade", "chat/b.py", "--check"]) == 0
    assert capsys.readouterr().out == "0 files would change, 0 things are left to you\n"


def test_diff_prints_a_patch_and_changes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "requirements.txt").write_text("channels")
    assert main(["upgrade", "chat", "requirements.txt", "--diff"]) == 0
    assert (here / "chat" / "a.py").read_text() == OLD
    out, err = capsys.readouterr()
    assert err == f"chat/a.py:3: from channels {LEFT}\n2 files would change, 1 thing is left to you\n"
    assert out == (
        "--- a/chat/a.py\n+++ b/chat/a.py\n@@ -1,3 +1,3 @@\n-import channels.layers\n+import trichannels.layers\n"
        " \n from channels import Group\n"
        "--- a/requirements.txt\n+++ b/requirements.txt\n@@ -1 +1 @@\n-channels\n\\ No newline at end of file\n"
        "+trichannels[django,serve]\n\\ No newline at end of file\n"
    )
    assert main(["upgrade", "chat", "--diff", "--check"]) == 1


def test_without_writing_the_lines_are_those_of_the_file_as_it_is(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "chat" / "a.py").write_text(
        "import asyncio\nimport os\nfrom asgiref.sync import async_to_sync\nclass A(BConsumer):\n"
        "    async def f(self):\n        await asyncio.sleep(1)\n        await asyncio.gather(a, b)\n"
        "    def g(self):\n        from trichannels.layers import get_channel_layer as get\n"
        "        async_to_sync(get().group_send)(a, b)\n        os.x; asyncio.run(c)\n"
    )
    main(["upgrade", "chat", "--check"])
    assert [line.split(":")[1] for line in capsys.readouterr().out.splitlines()[:-1]] == ["7", "11"]
    main(["upgrade", "chat"])
    assert [line.split(":")[1] for line in capsys.readouterr().out.splitlines()[:-1]] == ["8", "12"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nope"], "nope: there is no such file or directory"),
        ([".", "nope/at/all.py"], "nope/at/all.py: there is no such file or directory"),
        ([], "the following arguments are required: PATH (see: trichannels upgrade --help)"),
        ([".", "--chek"], "--chek is not known here: did you mean --check? (see: trichannels upgrade --help)"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    assert main(["upgrade", *arguments]) == 2
    assert capsys.readouterr() == ("", f"trichannels: {line}\n")
    assert (here / "chat" / "a.py").read_text() == OLD


def test_the_extra_is_missing(here: Path) -> None:
    code = "import sys; sys.modules['libcst'] = None; from trichannels.cli import main; sys.exit(main())"
    ended = subprocess.run([sys.executable, "-c", code, "upgrade", "."], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == "trichannels: upgrading needs libcst: pip install 'trichannels[upgrade]'\n"


def test_it_starts_neither_django_nor_a_loop(here: Path) -> None:
    code = "import sys; from trichannels.cli import main; main(); print('django' in sys.modules, 'trio' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code, "upgrade", "chat"], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1].startswith("False ")


def test_nothing_of_the_project_is_imported(here: Path) -> None:
    (here / "chat" / "b.py").write_text("import channels.layers\nopen('ran', 'w').close()\n")
    (here / "chat" / "__init__.py").write_text("open('ran', 'w').close()\n")
    assert main(["upgrade", "."]) == 0
    assert (here / "chat" / "b.py").read_text().startswith("import trichannels.layers\n")
    assert not (here / "ran").exists()


@pytest.mark.parametrize(
    "folder", [".git", "node_modules", "venv", ".venv", "lib/site-packages/x", "chat/migrations", "own-env"]
)
def test_what_is_not_the_projects_own_is_skipped(here: Path, folder: str) -> None:
    file = here / folder / "a.py"
    file.parent.mkdir(parents=True)
    file.write_text(OLD)
    if folder == "own-env":
        (here / folder / "pyvenv.cfg").touch()
    assert main(["upgrade", "."]) == 0
    assert file.read_text() == OLD


def test_links_are_skipped(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "a.py").write_text(OLD)
    (here / "linked.py").symlink_to(elsewhere / "a.py")
    (here / "folder").symlink_to(elsewhere)
    (here / "broken.py").symlink_to(here / "nowhere.py")
    assert main(["upgrade", ".", "linked.py"]) == 0
    assert (elsewhere / "a.py").read_text() == OLD
    assert (here / "linked.py").is_symlink()


def test_a_file_that_is_named_twice_is_done_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade", "chat/a.py", "chat", "./chat/../chat/a.py"]) == 0
    assert capsys.readouterr().out.endswith("\n1 file changed, 1 thing is left to you\n")


def test_what_cannot_be_parsed_does_not_hold_up_the_rest(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "aa.py").write_text("import channels\nprint 'two'\n")
    assert main(["upgrade", "."]) == 0
    assert (here / "chat" / "a.py").read_text() == NEW
    assert "aa.py:2: cannot be parsed (Missing parentheses in call to 'print'" in capsys.readouterr().out


def test_permissions_stay(here: Path) -> None:
    (here / "chat" / "a.py").chmod(0o754)
    assert main(["upgrade", "."]) == 0
    assert (here / "chat" / "a.py").stat().st_mode & 0o777 == 0o754


def test_a_write_that_fails_leaves_the_file_as_it_was(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    assert main(["upgrade", "chat"]) == 1
    out = capsys.readouterr().out
    assert "chat/a.py:1: cannot be written (Permission denied): see to it, and run this again\n" in out
    assert out.endswith("\n0 files changed, 2 things are left to you\n")
    assert sorted(path.name for path in (here / "chat").iterdir()) == ["a.py", "b.py"]
    assert (here / "chat" / "a.py").read_text() == OLD


def test_a_file_that_cannot_be_read_is_listed(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "b.py":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["upgrade", "chat"]) == 0
    assert "chat/b.py:1: cannot be read (Permission denied): see to it" in capsys.readouterr().out


def test_a_name_that_cannot_be_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"chat/\xff.py")
    Path(name).write_text(OLD)
    assert main(["upgrade", "chat"]) == 0
    assert f"chat/?.py:3: from channels {LEFT}\n" in capsys.readouterr().out


def test_a_package_may_import_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = tmp_path / "djangochannelsrestframework" / "a.py"
    inside.parent.mkdir()
    for file in (inside, tmp_path / "alone.py"):
        file.write_text("from djangochannelsrestframework.b import c\n")
    assert main(["upgrade", str(tmp_path / "alone.py")]) == 0
    assert "built on Channels" in capsys.readouterr().out
    assert main(["upgrade", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "0 files changed, 0 things are left to you\n"
