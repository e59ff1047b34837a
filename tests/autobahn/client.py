"""Running the client. It wants Python 2.7; where there is one, ``.ci/suite`` installs the client in ``.venv-2.7``."""

import json
import subprocess
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ..processes import running

ROOT = Path(__file__).parent.parent.parent
INSTALLED = ROOT / ".venv-2.7"
READY = INSTALLED / ".ready"  # says which interpreter it was installed with
START = "import site; site.addsitedir({!r}); from autobahntestsuite import wstest; wstest.run()"
# What ends in seconds: all but the performance cases (9), and a few of compression, of which each sends 1,000 messages.
QUICK = (
    *("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"),
    *("12.1.1", "12.2.5", "12.3.9", "12.5.12", "13.1.2", "13.2.6", "13.3.3", "13.4.8", "13.5.4", "13.6.7", "13.7.5"),
)
LARGEST = 2**24  # bytes; the largest message of the performance cases
AGENT = "trichannels"

Results = dict[str, dict[str, str | int | None]]


def is_quick(case: str) -> bool:
    """Say whether a case is among :data:`QUICK`."""
    return any(fnmatchcase(case, pattern) for pattern in QUICK)


def run_suite(folder: Path, *, cases: Sequence[str] = QUICK, patience: float = 240) -> Results:
    """Serve the echo, run the cases, and return what the client says of each; its reports stay in ``folder``.

    Raises CalledProcessError or TimeoutExpired if the client does not get to its end.
    """
    options = ("--bind", "127.0.0.1:0", "--max-message-size", str(LARGEST), "--permessage-deflate")
    with running("serve", "tests.autobahn.echo:application", *options, cwd=ROOT) as server:
        address = server.address().replace("http", "ws", 1)
        _run_client(folder, address, cases, patience)
    results: Results = json.loads((folder / "reports" / "index.json").read_text())[AGENT]
    return results


def _run_client(folder: Path, address: str, cases: Sequence[str], patience: float) -> None:
    plan = {
        "outdir": str(folder / "reports"),
        "servers": [{"agent": AGENT, "url": address}],
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    command = [READY.read_text().strip(), "-s", "-c", START.format(str(INSTALLED))]
    with (folder / "client.log").open("wb") as log:
        subprocess.run(
            [*command, "--mode", "fuzzingclient", "--spec", "plan.json"],
            cwd=folder,
            check=True,
            timeout=patience,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
