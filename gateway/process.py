"""One gateway process: the application and uvicorn in one loop, and their end in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import structlog
import uvicorn

from gateway import accepting
from gateway.settings import Settings

FORCED = 130
"""Exit code after a second Ctrl-C, as shells have it."""

GRACE = 30
"""Seconds that open requests and sessions get to end by themselves once we want to go."""

KEEP_ALIVE = 75
"""Seconds an idle connection stays open: above the 60 of a usual load balancer, so that it closes first."""

FILES_WANTED = 65_536
"""Open files: two per session and room to spare. Higher ones make old programs slow that we start."""

log = structlog.get_logger(__name__)

Report = Callable[[str, str, str], None]
Say = Callable[[str], None]


class Application(Protocol):
    """What runs inside. Made by gateway.app.create."""

    asgi: Any

    async def start(self) -> None:
        """Start the pool and the loops."""

    async def home_url(self) -> str:
        """A one-use address of the home page."""

    async def drain(self) -> None:
        """/readyz answers 503 from now on; everything else goes on."""

    async def stop(self, stop_machines: bool) -> None:
        """Stop the loops; with stop_machines also the machines, if no other gateway uses them."""


@dataclass(frozen=True, slots=True)
class Boot:
    """All that a gateway process needs to know. Holds every secret: goes through pipes, never through argv."""

    settings: Settings
    redis_url: str
    api_key: str
    signing_key: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "settings": self.settings.model_dump(mode="json")}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Boot:
        return cls(**{**data, "settings": Settings.model_validate(data["settings"])})


class Server(accepting.Server):
    """uvicorn's server without signals of its own: the order of the end is ours."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()


class Signals:
    """asked: somebody wants us to end. forced: they said it twice."""

    def __init__(self) -> None:
        self.asked, self.forced = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                loop.add_signal_handler(number, self._arrived)

    def _arrived(self) -> None:
        (self.forced if self.asked.is_set() else self.asked).set()


def run(
    boot: Boot,
    sock: socket.socket,
    report: Report,
    ready: Say,
    say: Say,
    every_second: Callable[[], None] | None = None,
) -> int:
    """Serve until told to stop; the exit code. ready: gets the home page's one-use address."""
    raise_file_limit(boot.settings.max_sessions)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(boot, sock, report, ready, say, every_second))


async def _run(
    boot: Boot,
    sock: socket.socket,
    report: Report,
    ready: Say,
    say: Say,
    every_second: Callable[[], None] | None,
) -> int:
    from gateway.app import create

    signals = Signals()
    application: Application = await create(
        boot.settings, boot.redis_url, boot.api_key, boot.signing_key, report
    )
    server = Server(config(application.asgi))
    pulse = asyncio.create_task(_pulse(every_second)) if every_second else None
    life = asyncio.create_task(_live(application, server, sock, ready))
    await _either(life, signals.asked.wait())
    ending = asyncio.create_task(_end(application, server, life, boot.settings, say))
    await _either(ending, signals.forced.wait())
    if pulse:
        pulse.cancel()
    if not ending.done():
        say("Forced: machines may go on; the next start finds them")
        for task in (ending, life):
            task.cancel()
        return FORCED
    await ending
    return 0


async def _live(application: Application, server: Server, sock: socket.socket, ready: Say) -> None:
    """Start, tell, and serve until the server is asked to end."""
    await application.start()
    serving = asyncio.create_task(server.serve([sock]))
    try:
        await _either(serving, server.accepting.wait())
        # What a start leaves behind stays: walking over it again and again would hold up the relay.
        gc.collect()
        gc.freeze()
        if not serving.done():
            ready(await application.home_url())
    except BaseException:
        server.should_exit = True
        raise
    finally:
        await serving


async def _end(
    application: Application, server: Server, life: asyncio.Task[None], settings: Settings, say: Say
) -> None:
    """The end in order; raises what ended the life, if that was no wish of anybody's."""
    asked = not life.done()
    if asked and server.started:
        say("Stopping: /readyz answers 503 (Ctrl-C again to stop at once)")
        await application.drain()
        await asyncio.sleep(settings.drain_delay)
        say("Closing sessions")
        # This also ends streams of server-sent events: sse-starlette listens here.
        server.handle_exit(signal.SIGTERM, None)
    elif asked:
        life.cancel()
    await asyncio.wait({life})
    if asked:
        local = settings.pool == "local"
        say(
            "Stopping machines, files are kept"
            if local
            else "Letting go of the machines: they go on"
        )
    try:
        await application.stop(stop_machines=True)
    finally:
        if not life.cancelled():
            life.result()


def config(asgi: Any) -> uvicorn.Config:
    from gateway.http import GatewayHttpProtocol
    from gateway.relay import GatewayWebSocketProtocol

    return uvicorn.Config(
        asgi,
        loop="uvloop",
        http=GatewayHttpProtocol,
        ws=GatewayWebSocketProtocol,
        ws_max_size=65536,  # of what is not handed over
        ws_per_message_deflate=False,  # compression is agreed end to end, by client and workspace
        lifespan="off",  # _run starts and stops the application, in the same loop
        interface="asgi3",
        workers=1,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )


def raise_file_limit(max_sessions: int) -> None:
    """The usual soft limit, 1024 files, is 500 sessions."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if 2 * max_sessions > max(soft, limit) > 0:
        log.warning(
            "open files are limited below what max_sessions needs; raise it with ulimit -n",
            limit=max(soft, limit),
            max_sessions=max_sessions,
        )


async def _pulse(beat: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(1)
        try:
            beat()
        except Exception:
            log.exception("looking after the embedded Valkey failed; next try in 1 s")


async def _either(task: asyncio.Task[None], other: Awaitable[Any]) -> None:
    """Return as soon as one of them is done. The task goes on; the other is let go."""
    waiter = asyncio.ensure_future(other)
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop

    return uvloop.new_event_loop
