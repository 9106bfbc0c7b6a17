"""A headless Chromium, driven over its DevTools protocol: https://chromedevtools.github.io/devtools-protocol/."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Path of the browser; None where there is none."""
SIZE = (1280, 900)


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._numbers = connection, itertools.count(1)

    def call(self, method: str, **options: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; events in between are passed over."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": options}))
        while True:
            answer = json.loads(self._connection.recv(timeout=60))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression of JavaScript."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    @property
    def text(self) -> str:
        """What a reader sees: the rendered text."""
        return self.evaluate("document.body ? document.body.innerText : ''")

    def wait_for(self, *wanted: str, seconds: float = 60) -> str:
        """Return the text as soon as it holds all that is wanted."""
        end = time.monotonic() + seconds
        while missing := [part for part in wanted if part not in (text := self.text)]:
            where = self.evaluate("location.href")
            assert time.monotonic() < end, f"{where} does not show {missing} but:\n{text}"
            time.sleep(0.2)
        return text

    def click(self, text: str) -> None:
        """Click the link, tab or button of this text."""
        script = (
            "(() => {const found = [...document.querySelectorAll('a, button, [role=tab]')]"
            f".find(e => e.innerText.trim() === {json.dumps(text)}); if (!found) return null;"
            "found.scrollIntoView({block: 'center'}); const box = found.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2];})()"
        )
        place = self.evaluate(script)
        assert place, f"nothing to click is called {text!r} in:\n{self.text}"
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )

    def fill(self, selector: str, text: str) -> None:
        """Type into a field and press Enter."""
        found = self.evaluate(
            f"(() => {{const e = document.querySelector({json.dumps(selector)}); e?.focus(); return !!e;}})()"
        )
        assert found, f"no {selector} in:\n{self.text}"
        self.call("Input.insertText", text=text)
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self.call("Input.dispatchKeyEvent", type="keyDown", text="\r", **enter)
        self.call("Input.dispatchKeyEvent", type="keyUp", **enter)

    def picture(self, path: Path) -> Path:
        """Write what is in the window as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path


@contextlib.contextmanager
def start_browser(folder: Path) -> Iterator[Page]:
    """Start a browser that reaches this machine only; its profile is in the folder, which is new."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-port=0",
        f"--user-data-dir={folder}", f"--window-size={SIZE[0]},{SIZE[1]}", "about:blank",
    ]  # fmt: skip
    with (
        (folder.parent / f"{folder.name}.log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            port = folder / "DevToolsActivePort"
            end = time.monotonic() + 60
            while not (port.is_file() and port.read_text().count("\n")):
                assert process.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < end, Path(log.name).read_text()
                time.sleep(0.1)
            address = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json/list"
            with urllib.request.urlopen(address, timeout=30) as answer:
                tab = next(entry for entry in json.loads(answer.read()) if entry["type"] == "page")
            with connect(tab["webSocketDebuggerUrl"], max_size=None) as connection:
                page = Page(connection)
                page.call("Page.enable")
                page.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=SIZE[0], height=SIZE[1], deviceScaleFactor=1, mobile=False,
                )  # fmt: skip
                yield page
                page.call("Browser.close")
        finally:
            process.terminate()
