"""moto's server in a process of its own, on a port of its own.

Run as a program it is that process: it writes its port and leaves when its standard input ends, so it
does not outlive tests that were killed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import urllib.request


class Moto:
    """`url` answers as soon as the constructor returns."""

    def __init__(self) -> None:
        # A few images are made up by tests; the five hundred that moto knows cost time with every reset.
        environment = {**os.environ, "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert self._process.stdout
        port = self._process.stdout.readline().decode().strip()
        if not port:
            self.close()
            raise RuntimeError(f"moto's server did not start: try {sys.executable} {__file__}")
        self.url = f"http://127.0.0.1:{port}"

    def reset(self) -> None:
        """Forget everything."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        urllib.request.urlopen(request, timeout=30).close()

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        self._process.terminate()
        self._process.wait(10)


def _serve() -> None:
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    os.environ["MOTO_PORT"] = str(server.port)
    threading.Thread(target=_leave_with_the_tests, daemon=True).start()
    print(server.port, flush=True)
    server.serve_forever()


def _leave_with_the_tests() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    _serve()
