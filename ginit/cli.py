"""The command line: `ginit [DIR]`."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Mapping, NoReturn

import gevent

from . import __version__
from .output.log import formatter
from .patching import patch_subprocess
from .processes.diagnosis import shortage
from .settings import Settings, SettingsError
from .supervisor import FAILURE, Supervisor
from .text import printable

#: Words in the place of DIR that are, or will be, commands.
COMMANDS = ("exec", "check", "status")
#: What ginit is called by to do as runsvdir(8).
RUNSVDIR_NAMES = ("runsvdir", "ginit-runsvdir")

#: Seconds after which what is only there in case takes its time.
_PATCH_DELAY = 1

_EPILOG = """\
Settings come from the environment: GINIT_DIR, GINIT_JSON_STDOUT, GINIT_LOG_LEVEL, GINIT_LOG_FORMAT,
GINIT_REPARENTING_POLICY, GINIT_KILL_TIMEOUT, GINIT_MAX_LINE, GINIT_DRAIN_TIMEOUT, GINIT_RESTART, GINIT_SUPERVISE; each, where
unset, as DINIT_*. Called as runsvdir, ginit takes that program's place.

Exit status: 0 told to stop, or the first service to end returned 0; 1 ginit failed; 3 a service failed.
"""


def main(name: str, arguments: list[str], environ: Mapping[bytes, bytes], start_cost: float = 0.0) -> int:
    """Run the command that is asked for, with `environ` for the services.

    Args:
        name: what ginit was called by, `runsvdir` for instance.
        arguments: the others.
        environ: the environment.
        start_cost: seconds of processor time that the imports took.

    Returns:
        The exit status.
    """
    directory, default = _parse_runsvdir(name, arguments) if name in RUNSVDIR_NAMES else (_parse(arguments), None)
    form = "json" if (environ.get(b"GINIT_LOG_FORMAT") or environ.get(b"DINIT_LOG_FORMAT")) == b"json" else "text"
    error = _open_standard_streams()
    if error:
        return _complain(error, form=form)
    gevent.spawn_later(_PATCH_DELAY, _patch_subprocess)
    try:
        return Supervisor(Settings.read(environ, directory, default), environ, start_cost).run()
    except SettingsError as bad:
        return _complain(*bad.errors, form=form)
    except OSError as bad:
        reason = f"{bad.strerror}: {os.fsdecode(bad.filename)}" if bad.filename else bad.strerror
        return _complain(f"can't start: {shortage(bad) or reason}", form=form)
    except Exception as bad:  # noqa: BLE001  (PID 1 says what is wrong in a line, whatever it is)
        return _complain(f"unexpected error, nothing was started: {type(bad).__name__}: {bad}", form=form)


def _patch_subprocess() -> None:
    """Patch `subprocess`, when there are the descriptors for what that imports."""
    try:
        patch_subprocess()
    except OSError as error:
        if not shortage(error):
            raise
        gevent.spawn_later(_PATCH_DELAY, _patch_subprocess)


def _parse_runsvdir(name: str, arguments: list[str]) -> tuple[bytes, Settings]:
    """The directory, and the settings where the environment says nothing, in runsvdir's place."""
    from .runit import command

    try:
        directory, sessions = command.parse(name, arguments)
    except command.UsageError as error:
        os.write(2, f"{error}\n".encode())
        sys.exit(FAILURE)
    return directory, command.DEFAULTS._replace(sessions=sessions)


def _parse(arguments: list[str]) -> bytes | None:
    """The directory that is asked for, if one is; leaves the process where there's nothing to run."""
    command = next((argument for argument in arguments if argument != "--"), None)
    if command in COMMANDS:
        sys.exit(_complain(f"this version has no command {command}; a directory of that name is written ./{command}"))
    if arguments == [argument for argument in arguments[:1] if not argument.startswith("-")]:
        directory = arguments[0] if arguments else None  # what containers say, without the 9 ms that argparse takes
    else:
        directory = _parse_options(arguments)
    if directory == "":
        sys.exit(_complain("DIR is empty; name the directory of services"))
    return None if directory is None else os.fsencode(directory)


def _parse_options(arguments: list[str]) -> str | None:
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            sys.exit(_complain(f"{message}; see {self.prog} --help"))

    parser = Parser(
        prog="ginit",
        description="A process manager and init (PID 1) for containers: runs every service in a directory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", help="the directory of services (default: GINIT_DIR, or /etc/service)"
    )
    parser.add_argument("--version", action="version", version=f"ginit {__version__}")
    directory: str | None = parser.parse_args(arguments).directory
    return directory


def _open_standard_streams() -> str | None:
    """See to it that descriptors 0 to 2 are open, before something else gets these numbers.

    Returns:
        What is wrong, if something is.
    """
    closed = []
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(name)
            os.open("/dev/null", os.O_RDWR)
    if closed and closed != ["stdin"]:
        return f"{' and '.join(closed[-2:])} closed, so lines would be lost; redirect to /dev/null what isn't wanted"
    return None


def _complain(*errors: str, form: str = "text") -> int:
    try:
        format_message = formatter(form)
    except (OSError, ImportError):  # too many open files, say
        format_message = formatter("text")
    for error in errors:
        with contextlib.suppress(OSError):  # nowhere to say it; the status still does
            os.write(2, format_message("error", printable(os.fsencode(error)), None))
    return FAILURE
