"""A process that runs the real ``channels_redis.pubsub``: it is told what to do, and answers, in lines of JSON."""

import asyncio
import json
import sys
from typing import Any


async def main() -> None:
    from channels_redis.pubsub import RedisPubSubChannelLayer

    options = json.loads(sys.argv[1])
    layer = RedisPubSubChannelLayer(**options)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    channel = await layer.new_channel()
    say(channel)
    while line := await reader.readline():
        call, *arguments = json.loads(line)
        if call == "join":
            await layer.group_add(arguments[0], channel)
        elif call == "leave":
            await layer.group_discard(arguments[0], channel)
        elif call == "receive":
            say(await asyncio.wait_for(layer.receive(channel), 10))
            continue
        else:
            await getattr(layer, call)(*arguments)
        say("done")
    await layer.flush()


def say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
