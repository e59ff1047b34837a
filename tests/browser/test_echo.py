"""Chromium's own WebSocket against the command, with no client code of ours between."""

import pytest
from playwright.sync_api import Browser

from ..autobahn.client import ROOT
from ..processes import running

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.trio_only]

SCRIPT = """address => new Promise((resolve, reject) => {
  const socket = new WebSocket(address), big = 'grün'.repeat(200000), saw = {messages: []}
  socket.binaryType = 'arraybuffer'
  socket.onopen = () => {
    saw.extensions = socket.extensions
    for (const message of ['grüße ✓', new Uint8Array([0, 255]), '', big]) socket.send(message)
  }
  socket.onmessage = ({data}) => {
    saw.messages.push(data === big ? true : typeof data === 'string' ? data : [...new Uint8Array(data)])
    if (saw.messages.length === 4) socket.close(4001, 'had enough')
  }
  socket.onclose = ({code, reason, wasClean}) => resolve({...saw, closed: [code, reason, wasClean]})
})"""


@pytest.mark.parametrize(("options", "extensions"), [((), ""), (("--permessage-deflate",), "permessage-deflate")])
def test_chromium_speaks_with_us(browser: Browser, options: tuple[str, ...], extensions: str) -> None:
    with running("serve", "tests.autobahn.echo:application", "--bind", "127.0.0.1:0", *options, cwd=ROOT) as server:
        page = browser.new_page()
        saw = page.evaluate(SCRIPT, server.address().replace("http", "ws", 1))
        page.close()
    assert saw.pop("extensions").partition(";")[0] == extensions
    assert saw == {
        "messages": ["grüße ✓", [0, 255], "", True],
        "closed": [4001, "had enough", True],
    }
