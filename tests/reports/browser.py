"""Chromium without a window, driven over a pipe by its own DevTools protocol: no driver, no library."""

import base64
import contextlib
import fcntl
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import time

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_TIMEOUT = 60.0  # seconds for any answer
_KEY_CODES = {
    "ArrowLeft": 37,
    "ArrowRight": 39,
    "Home": 36,
    "End": 35,
    "Tab": 9,
    "Enter": 13,
    "+": 187,
    "-": 189,
    "0": 48,
}


@functools.cache
def find_chromium():
    """Path of a Chromium that starts, or None: on some systems the command only says how to install it."""
    for path in filter(None, map(shutil.which, _NAMES)):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if subprocess.run([path, "--version"], capture_output=True, timeout=_TIMEOUT, check=False).returncode == 0:
                return path
    return None


class Browser:
    """One page of a browser.

    Args:
      executable: path of Chromium.
      folder: `Path` of a folder for its profile and its log.

    Attributes:
      errors: texts of the console's errors and of uncaught exceptions since the page was opened.
      requests: addresses that the page asked for since then, its own among them.
    """

    def __init__(self, executable, folder):
        self.errors = []
        self.requests = []
        self._buffer = b""
        self._last_id = 0
        self._answers = {}
        self._events = []
        # DevTools reads descriptor 3 and writes 4; high numbers here, so that neither overwrites the other.
        ours = os.pipe()
        theirs = os.pipe()
        read, write = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (ours[0], theirs[1]))
        os.close(ours[0])
        os.close(theirs[1])
        self._write = ours[1]
        self._read = theirs[0]
        log = os.open(folder / "chromium.log", os.O_WRONLY | os.O_CREAT, 0o600)
        # Without its sandbox, which root and many containers refuse it: the pages are our own.
        names = ("headless", "no-sandbox", "remote-debugging-pipe", "no-first-run", "disable-background-networking",
                 "disable-component-update", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars")  # fmt: skip
        options = [f"--{name}" for name in names] + [f"--user-data-dir={folder / 'profile'}"]
        actions = [(os.POSIX_SPAWN_DUP2, read, 3), (os.POSIX_SPAWN_DUP2, write, 4)]
        actions += [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        self._process = os.posix_spawn(executable, [executable, *options], os.environ, file_actions=actions)
        for descriptor in (read, write, log):
            os.close(descriptor)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path, width=1280, height=900, dark=False):
        """Opens a file in a window of this size and colour scheme, and waits until it has loaded."""
        self.errors.clear()
        self.requests.clear()
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setDeviceMetricsOverride", **size)
        media = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[dict(name=k, value=v) for k, v in media.items()])
        self._events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + _TIMEOUT
        while "Page.loadEventFired" not in self._events:
            self._receive(deadline)
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def evaluate(self, expression):
        """The value of a JavaScript expression, a promise's result included."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key):
        """Presses and releases a key of the keyboard."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        event = dict(key=key, windowsVirtualKeyCode=_KEY_CODES[key], **({} if text else {"code": key}))
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def drag(self, selector, start, end):
        """Drags over an element from one place to another, both fractions of its width, at half of its height."""
        find = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{find}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = f"(({{x, y, width, height}}) => [x, y, width, height])({find}.getBoundingClientRect())"
        x, y, width, height = self.evaluate(box)
        places = [(x + fraction * width, y + height / 2) for fraction in (start, (start + end) / 2, end)]
        moves = [("mouseMoved", places[0], 0), ("mousePressed", places[0], 1), ("mouseMoved", places[1], 1)]
        moves += [("mouseMoved", places[2], 1), ("mouseReleased", places[2], 0)]
        for kind, (at_x, at_y), buttons in moves:
            button = "none" if (kind, buttons) == ("mouseMoved", 0) else "left"
            event = dict(button=button, buttons=buttons, clickCount=1)
            self.call("Input.dispatchMouseEvent", type=kind, x=at_x, y=at_y, **event)

    def screenshot(self, path):
        """Writes the whole page as a PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        """Ends the browser."""
        for descriptor in (self._write, self._read):
            os.close(descriptor)
        os.kill(self._process, signal.SIGTERM)
        os.waitpid(self._process, 0)

    def call(self, method, **parameters):
        """Calls a method of the protocol for the page."""
        return self._call(method, self._session, **parameters)

    def _call(self, method, session=None, **parameters):
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + _TIMEOUT
        while self._last_id not in self._answers:
            self._receive(deadline)
        answer = self._answers.pop(self._last_id)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _receive(self, deadline):
        """Reads what the browser says next."""
        ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"no answer within {_TIMEOUT:g} seconds"
        data = os.read(self._read, 1 << 16)
        assert data, "the browser has gone: see chromium.log"
        *messages, self._buffer = (self._buffer + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message["method"], message["params"])

    def _note(self, event, what):
        self._events.append(event)
        if event == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(what["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and what["type"] in ("error", "assert"):
            self.errors.append(json.dumps(what["args"]))
        elif event == "Log.entryAdded" and what["entry"]["level"] == "error":
            self.errors.append(what["entry"]["text"])
