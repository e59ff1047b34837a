"""Running the client. It wants Python 2.7; where there is one, ``.ci/suite`` installs the client in ``.venv-2.7``."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..processes import running

ROOT = Path(__file__).parent.parent.parent
INSTALLED = ROOT / ".venv-2.7"
READY = INSTALLED / ".ready"  # says which interpreter it was installed with
START = "import site; site.addsitedir({!r}); from autobahntestsuite import wstest; wstest.run()"
PERFORMANCE = ("9.*",)
LARGEST = 2**24  # bytes; the largest message of the performance cases
AGENT = "trichannels"

Results = dict[str, dict[str, str | int | None]]


def run_suite(folder: Path, *, without: Sequence[str] = PERFORMANCE, patience: float = 120) -> Results:
    """Serve the echo, run the cases, and return what the client says of each; its reports stay in ``folder``.

    Raises CalledProcessError or TimeoutExpired if the client does not get to its end.
    """
    serve = ("serve", "tests.autobahn.echo:application", "--bind", "127.0.0.1:0", "--max-message-size", str(LARGEST))
    with running(*serve, cwd=ROOT) as server:
        address = server.address().replace("http", "ws", 1)
        _run_client(folder, address, without, patience)
    results: Results = json.loads((folder / "reports" / "index.json").read_text())[AGENT]
    return results


def _run_client(folder: Path, address: str, without: Sequence[str], patience: float) -> None:
    plan = {
        "outdir": str(folder / "reports"),
        "servers": [{"agent": AGENT, "url": address}],
        "cases": ["*"],
        "exclude-cases": list(without),
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
