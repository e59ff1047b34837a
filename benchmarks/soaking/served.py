"""The process that serves, as the soak holds it: started, asked, stopped. What it does itself is in ``server``."""

import json
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import trio
import trustme

from .peer import Site

ROOT = Path(__file__).resolve().parent.parent.parent
END = 30.0  # seconds that the process may take to stop


class Served:
    """One server process. ``errors`` is what it wrote to standard error so far."""

    def __init__(self, process: trio.Process) -> None:
        self._process, self._buffer = process, bytearray()
        self.errors = ""

    async def site(self, trust: ssl.SSLContext) -> Site:
        """Wait for its first line: where it listens."""
        addresses = [address.partition("://") for address in (await self._line())["addresses"]]
        ports = {scheme: int(rest.rpartition(":")[2]) for scheme, _, rest in addresses}
        return Site(port=ports["http"], tls_port=ports.get("https", 0), trust=trust)

    async def ask(self, word: str) -> dict[str, Any]:
        """Send a command and return the answer."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(word.encode() + b"\n")
        return await self._line()

    async def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self._process.stdout.receive_some()
            if not data:
                raise RuntimeError(f"the server has ended: {self._process!r} {self.errors}")
            self._buffer += data
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def stop(self) -> int:
        """Close its input, which tells it to stop, and return its exit code."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        with trio.fail_after(END):
            return await self._process.wait()

    async def listen(self) -> None:
        """Read its standard error to the end."""
        assert self._process.stderr is not None
        async for data in self._process.stderr:
            self.errors += data.decode(errors="replace")


@asynccontextmanager
async def served(kind: str) -> AsyncIterator[tuple[Served, Site]]:
    """Run a server of this kind for the block; killed at its end if it still lives."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, trust = _certificate(Path(folder))
        command = [sys.executable, "-W", "default", "-m", "benchmarks.soaking.server", kind, certificate]
        process = await trio.lowlevel.open_process(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT)
        try:
            async with trio.open_nursery() as nursery:
                it = Served(process)
                nursery.start_soon(it.listen)
                with trio.fail_after(END):
                    site = await it.site(trust)
                yield it, site
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
                for pipe in (process.stdin, process.stdout, process.stderr):
                    assert pipe is not None
                    await pipe.aclose()


def _certificate(folder: Path) -> tuple[str, ssl.SSLContext]:
    """Make a certificate for localhost; return its file, key included, and a context that trusts it."""
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    file = folder / "certificate.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(file))
    return str(file), trust
