"""A small IDE for tests: opens only to its secret, and does over HTTP what a person does in a terminal.

Runs as `python -c SOURCE PORT`, since the file itself may lie where the workspace's user cannot go.
So no braces around a lone word here: the workspace command is a template.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

SECRET = os.environ["IDE_SECRET"]
kept = []


def write(name, text):
    with open(os.path.join(os.environ["HOME"], name), "w") as file:
        file.write(text)
    return True


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(100_000).decode(errors="replace")
    except OSError as error:
        return "refused: " + error.strerror


def listing(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return "refused: " + error.strerror


def share():
    """Keys of System V's shared memory here; then some of ours is made, which outlasts us."""
    with open("/proc/sysvipc/shm") as file:
        found = [line.split()[0] for line in list(file)[1:]]
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.shmget(0x1DE, 4096, 0o1600)
    return found if made >= 0 else "refused: " + os.strerror(ctypes.get_errno())


def spawn(detached, clean=""):
    """A job in the background that ignores SIGHUP; detached: in a session of its own."""
    code = "import signal,time; signal.signal(signal.SIGHUP, signal.SIG_IGN); time.sleep(600)"
    environment = None if not clean else dict(PATH=os.environ["PATH"])
    job = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=detached == "yes", env=environment
    )
    kept.append(job)
    return job.pid


def listen(address="127.0.0.1", port="0"):
    extra = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    if address == "::":
        extra.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, port != "0")
    extra.bind((address, int(port)))
    extra.listen()
    kept.append(extra)
    return extra.getsockname()[1]


def pose(boot, home):
    """Listen from a process that wears another workspace's mark."""
    code = "import socket,time; s = socket.create_server(('127.0.0.1', 0));"
    code += "print(s.getsockname()[1], flush=True); time.sleep(600)"
    mark = dict(os.environ, IDE_GATEWAY_BOOT=boot, IDE_GATEWAY_HOME=home)
    job = subprocess.Popen([sys.executable, "-c", code], env=mark, stdout=subprocess.PIPE)
    kept.append(job)
    return int(job.stdout.readline())


def fetch(port):
    try:
        with urllib.request.urlopen("http://127.0.0.1:" + port + "/environ", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def stubborn():
    kept.append("no SIGTERM")
    return True


def whoami():
    import getpass

    return [os.getuid(), os.getgid(), os.getgroups(), getpass.getuser(), oct(os.umask(0o077))]


CALLS = dict(
    environ=lambda: dict(os.environ),
    write=write,
    read=read,
    listing=listing,
    share=share,
    spawn=spawn,
    listen=listen,
    pose=pose,
    fetch=fetch,
    stubborn=stubborn,
    whoami=whoami,
)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Authorization") != "token " + SECRET:
            self.send_error(403)
            return
        parts = urlsplit(self.path)
        call = CALLS.get(parts.path.strip("/"))
        answer = json.dumps(call(**dict(parse_qsl(parts.query))) if call else "ready").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass


# Without the TIME_WAIT excuse: a port that is taken shall be an error.
ThreadingHTTPServer.allow_reuse_address = False
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
signal.signal(signal.SIGTERM, lambda *_: "no SIGTERM" in kept or os._exit(0))
print("serving, the secret is " + SECRET, flush=True)
server.serve_forever()
