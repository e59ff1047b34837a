"""``python -m tests.redis.presence_process URL PREFIX LEASE GROUP KEY…``: says that it is present, until killed."""

import sys

import anyio

from .presence_nodes import node


async def main(*arguments: str) -> None:
    url, prefix, lease, group, *keys = arguments
    async with node(url, prefix, lease=float(lease)) as here:
        for number, key in enumerate(keys):
            await here.board.enter(group, f"tab{number}", key, {"tab": number})
        sys.stdout.write("present\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:], backend="trio")
