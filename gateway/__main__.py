"""The command line. Heavy imports are inside the commands: `ide-gateway --help` and `ls` answer at once."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway import __version__
from gateway.exits import Exit
from gateway.simulate_flags import cloud_of, flags, settings_of
from gateway.terminal import fail, say, warn

if TYPE_CHECKING:
    from gateway.client import Client
    from gateway.sources import Loaded

UNEXPECTED = 70
"""EX_SOFTWARE: a fault of ours."""

INTERRUPTED = 130

Command = TypeVar("Command", bound=Callable[..., Any])


class Verbosity:
    traceback = False


def _verbose(_context: click.Context, _option: click.Parameter, value: bool) -> None:
    Verbosity.traceback |= value


verbose = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_verbose,
    help="Show the traceback of an error.",
)  # fmt: skip


class SettingsCommand(click.Command):
    """A command with a flag for every setting; they are looked up only when it is this command's turn."""

    _complete = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self._complete:
            from gateway.flags import options

            self.params[:0] = options()
            self._complete = True
        return super().get_params(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from gateway.flags import write_parts

        write_parts(self.get_params(ctx), ctx, formatter)


def _load(flags: dict[str, Any], show_warnings: bool = True) -> Loaded:
    from gateway.sources import load

    config = flags.pop("config", None)
    given = {name: value for name, value in flags.items() if value is not None}
    loaded = load(given, os.environ, config)
    if show_warnings:
        for text in loaded.warnings:
            warn(text)
    return loaded


class Interruptible(click.Group):
    """Ctrl-C ends any command with INTERRUPTED; click itself would say "Aborted!", with the code of an error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


@click.group(
    cls=Interruptible,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ide-gateway", message="%(prog)s %(version)s")
@verbose
def cli() -> None:
    """Browser IDEs behind one gateway: started on a visit, kept while used, stopped when idle."""


@cli.command(cls=SettingsCommand)
@verbose
def serve(**flags: Any) -> None:
    """Run the gateway; it needs no flags.

    Without any it serves http://localhost:8000, keeps its data in .ide-gateway/, runs an embedded
    Valkey there and machines on this host, and offers JupyterLab.
    """
    loaded = _load(flags, show_warnings=False)
    _forget_secrets()
    from gateway.serve import serve as run

    sys.exit(run(loaded))


@cli.command(hidden=True)
@verbose
def worker() -> None:
    """One of the processes of `serve --workers N`; started by it, never by hand."""
    from gateway.workers import work

    sys.exit(work())


@cli.command(cls=SettingsCommand)
@click.option("--json", "json_wanted", is_flag=True, help="As JSON: {name: {value, source}}.")
@verbose
def settings(json_wanted: bool, **flags: Any) -> None:
    """Check and print every setting and its source."""
    from gateway.flags import as_json, as_rows

    loaded = _load(flags)
    if json_wanted:
        say(json.dumps(as_json(loaded), indent=2))
        return
    rows = as_rows(loaded)
    width = max(len(name) for name, _, _ in rows)
    for name, value, source in rows:
        say(f"{name:<{width}}  {value if value != '' else '-'}  ({source})")


def gateway_options(command: Command) -> Command:
    """Where the client commands find the gateway."""
    for option in (
        verbose,
        click.option("--data-dir", help="Its data directory: has its address and API key."),
        click.option(
            "--url", default="", help="Its address.  [IDE_GATEWAY_URL; default: as in DATA_DIR]"
        ),
    ):
        command = option(command)
    return command


output = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)


def _client(url: str, data_dir: str | None) -> Client:
    from gateway.client import find

    return find(lambda: _load({"data_dir": data_dir}), url, os.environ)


@cli.command()
@click.option("--user", default="", help="Only this user's.")
@output
@gateway_options
def ls(user: str, output: str, url: str, data_dir: str | None) -> None:
    """List workspaces: status, idle for how long, stops when."""
    from gateway.client import table, workspaces

    rows = workspaces(_client(url, data_dir), user)
    for line in (
        [json.dumps(rows, indent=2)] if output == "json" else table(rows, time.time() * 1000)
    ):
        say(line)


@cli.command()
@click.argument("names", metavar="USER_OR_WORKSPACE...", nargs=-1, required=True)
@gateway_options
def start(names: tuple[str, ...], url: str, data_dir: str | None) -> None:
    """Start workspaces, by their id or their user.

    For the name of a user: theirs, made if they have none.
    """
    from gateway.client import start as start_one

    client = _client(url, data_dir)
    for name in names:
        _tell(start_one(client, name))


@cli.command()
@click.argument("workspaces", metavar="WORKSPACE...", nargs=-1, required=True)
@gateway_options
def stop(workspaces: tuple[str, ...], url: str, data_dir: str | None) -> None:
    """Stop workspaces; their files are kept."""
    from gateway.client import stop as stop_one

    client = _client(url, data_dir)
    for workspace in workspaces:
        _tell(stop_one(client, workspace))


@cli.command("open")
@click.argument("workspace")
@gateway_options
def open_(workspace: str, url: str, data_dir: str | None) -> None:
    """Print a one-use address of a workspace."""
    from gateway.client import enter

    say(str(enter(_client(url, data_dir), workspace).get("url", "")))


@cli.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now.")
@output
@gateway_options
def events(follow: bool, output: str, url: str, data_dir: str | None) -> None:
    """Print what happened, oldest first."""
    from gateway.client import event_line
    from gateway.client import events as happened

    for event in happened(_client(url, data_dir), follow):
        say(json.dumps(event) if output == "json" else event_line(event))


@cli.command()
@click.argument("workspace")
@output
@gateway_options
def why(workspace: str, output: str, url: str, data_dir: str | None) -> None:
    """Say why a workspace is alive, and what happens next."""
    from gateway.client import activity
    from gateway.client import why as lines_of

    row = activity(_client(url, data_dir), workspace)
    lines = [json.dumps(row, indent=2)] if output == "json" else lines_of(row, time.time() * 1000)
    for line in lines:
        say(line)


@cli.command()
@click.argument("workload")
@flags
@verbose
def simulate(workload: str, **given: Any) -> None:
    """Simulate who would wait, and what machines would cost.

    The code that decides live decides on a virtual clock. WORKLOAD is who comes, as in
    diurnal:users=1500, rush, exam:users=500,extra=3000, recorded:visits.csv, events:day.json,
    occupancy:there.csv, flights:users=1500; docs/scaling.md says more.

    Exit code 3: a promise of safety was broken. 1, 2, 69, 78: it could not be simulated, as is said.
    """
    cloud, settings = cloud_of(given), settings_of(given)
    try:
        # Inside, as they take longer to load than some take to change their mind.
        from gateway.simulate import simulate as run
        from gateway.simulate import simulator
        from gateway.simulate_order import Order

        code = run(Order(workload, cloud=cloud, settings=settings, **given), simulator())
    except KeyboardInterrupt:
        say("stopped; nothing was written")
        code = INTERRUPTED
    sys.exit(code)


@cli.command()
@output
@gateway_options
def peaks(output: str, url: str, data_dir: str | None) -> None:
    """List declared peaks, and what is held for each."""
    from gateway.declaring import peaks as declared
    from gateway.declaring import table

    rows = declared(_client(url, data_dir))
    lines = [json.dumps(rows, indent=2)] if output == "json" else table(rows, time.time() * 1000)
    for line in lines:
        say(line)


@cli.group()
def peak() -> None:
    """Declare that many people come at once, or that they do not."""


def _moment(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    from datetime import datetime

    from gateway.declaring import moment

    try:
        return round(moment(text, datetime.now().astimezone()).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error)) from None


@peak.command("add")
@click.argument("name")
@click.argument("at_ms", metavar="AT", callback=_moment)
@click.argument("users", type=int)
@click.option("--early", type=float, help="The first come so many seconds before.  [default: 600]")
@click.option("--late", type=float, help="The last come so many seconds after.  [default: 1800]")
@gateway_options
def peak_add(
    name: str,
    at_ms: int,
    users: int,
    early: float | None,
    late: float | None,
    url: str,
    data_dir: str | None,
) -> None:
    """Have slots for so many USERS who come at that time, beside those who usually do.

    AT is a time such as 2026-12-01T09:00 (of this terminal's time zone), 2026-12-01T09:00+01:00, or 09:00 for the next
    one. A peak of the same name is replaced.
    """
    from gateway.declaring import add, table

    row = add(_client(url, data_dir), name, at_ms, users, early, late)
    for line in table([row], time.time() * 1000):
        say(line)


@peak.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@gateway_options
def peak_rm(names: tuple[str, ...], url: str, data_dir: str | None) -> None:
    """Hold no slots for it any more."""
    from gateway.declaring import remove

    client = _client(url, data_dir)
    for name in names:
        remove(client, name)


def _tell(row: dict[str, Any]) -> None:
    from gateway.client import summary

    say(summary(row))


def _forget_secrets() -> None:
    """What the settings have read must not be in the environment of machines and IDEs."""
    from gateway.settings import SECRETS
    from gateway.sources import variable

    for name in SECRETS:
        os.environ.pop(variable(name), None)


def main() -> None:
    """Run a command. Errors end with one line and its exit code; a traceback needs -v."""
    try:
        cli(prog_name="ide-gateway", standalone_mode=True)
    except Exit as error:
        if Verbosity.traceback:
            raise
        fail(error)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if Verbosity.traceback:
            raise
        text = str(error) or "no further words"
        fail(Exit(f"{type(error).__name__}: {text}", "this is unexpected; -v shows the traceback"))
        sys.exit(UNEXPECTED)


if __name__ == "__main__":
    main()
