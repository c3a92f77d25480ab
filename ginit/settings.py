"""What the environment says: every `GINIT_*` variable, read once and checked."""

from __future__ import annotations

import math
import os
from typing import Callable, Mapping, NamedTuple, TypeVar

from .restart import RestartPolicy

T = TypeVar("T")

#: The levels of ginit's own messages; each shows itself and those before it.
LEVELS = ("none", "error", "warn", "info", "debug")
FORMATS = ("text", "json")
#: Characters of a bad value that an error shows.
_SHOWN = 80
POLICIES = ("terminate", "adopt", "ignore")
#: What becomes of reparented processes in runsvdir's place, where nothing else is asked for: they are ignored, and
#: terminated with the services.
SPARE = "spare"
RESTARTS = ("no", "on-failure", "on-failure:N", "always")


class SettingsError(Exception):
    """Values that can't be used; `errors` has a line for each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class Settings(NamedTuple):
    """ginit's settings. The defaults here are the ones the README states.

    A named tuple because it can't be changed either, and starts 4 ms sooner than a frozen dataclass.
    """

    #: The directory of services, absolute.
    directory: bytes = b"/etc/service"
    #: Whether stdout lines are JSON objects that metadata is added to, or text that metadata is put before.
    json_stdout: bool = True
    #: One of `LEVELS`.
    log_level: str = "warn"
    #: One of `FORMATS`.
    log_format: str = "text"
    #: One of `POLICIES`, or `SPARE`: what happens to a process whose parent died.
    reparenting_policy: str = "terminate"
    #: Seconds from TERM to KILL for a reparented process.
    kill_timeout: float = 30.0
    #: Bytes; a longer line is passed on in pieces.
    max_line: int = 1024 * 1024
    #: Seconds without progress after which a reader is given up, once the last process has ended.
    drain_timeout: float = 5.0
    #: When a service that has ended is started again.
    restart: RestartPolicy = RestartPolicy()
    #: Whether each service gets a `supervise` directory, through which `sv` controls it.
    supervise: bool = False
    #: Whether ginit takes the place of runsvdir(8).
    runsvdir: bool = False
    #: Whether each process gets a session and a process group of its own.
    sessions: bool = False

    @classmethod
    def read(cls, environ: Mapping[bytes, bytes], directory: bytes | None = None, default: Settings | None = None) -> Settings:
        """The settings in `environ`; `directory`, where given, counts more than `GINIT_DIR`.

        Each variable is read as `GINIT_X` and, where that is unset or empty, as `DINIT_X`; where that is, too, `default` counts.

        Raises:
            SettingsError: at least one variable has a value that it doesn't take, or the directory is relative to none.
        """
        errors: list[str] = []

        default = cls() if default is None else default

        def value(name: str, parse: Callable[[str], T], default: T) -> T:
            for prefix in ("GINIT_", "DINIT_"):
                text = os.fsdecode(environ.get(os.fsencode(prefix + name), b""))
                if text:
                    try:
                        return parse(text)
                    except ValueError as error:
                        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
                        errors.append(f"{prefix}{name} takes {error}, not {shown!a}")
                        return default
            return default

        settings = default._replace(
            directory=_absolute(directory or value("DIR", os.fsencode, default.directory)),
            json_stdout=value("JSON_STDOUT", _switch, default.json_stdout),
            log_level=value("LOG_LEVEL", _one_of(*LEVELS), default.log_level),
            log_format=value("LOG_FORMAT", _one_of(*FORMATS), default.log_format),
            reparenting_policy=value("REPARENTING_POLICY", _one_of(*POLICIES), default.reparenting_policy),
            kill_timeout=value("KILL_TIMEOUT", _seconds, default.kill_timeout),
            max_line=value("MAX_LINE", _size, default.max_line),
            drain_timeout=value("DRAIN_TIMEOUT", _seconds, default.drain_timeout),
            restart=value("RESTART", _restart, default.restart),
            supervise=value("SUPERVISE", _switch, default.supervise),
        )
        if errors:
            raise SettingsError(errors)
        return settings


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{', '.join(words[:-1])} or {words[-1]}")
        return text

    return parse


def _switch(text: str) -> bool:
    return _one_of("0", "1")(text) == "1"


def _restart(text: str) -> RestartPolicy:
    mode, colon, limit = text.partition(":")
    if mode not in RESTARTS or (colon and not (mode == "on-failure" and limit.isascii() and limit.isdigit() and len(limit) <= 9)):
        raise ValueError(f"{', '.join(RESTARTS[:-1])} or {RESTARTS[-1]}")
    return RestartPolicy(mode, int(limit) if limit else None)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    # Python takes `1_000`, too.
    if not 0 <= seconds < math.inf or "_" in text:
        raise ValueError("a number of seconds, 0 or more")
    return seconds


def _size(text: str) -> int:
    # Eighteen digits are more than any machine has, and fewer than int() refuses.
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text)):
        raise ValueError("a whole number of bytes, 1 or more")
    return int(text)


def _absolute(path: bytes) -> bytes:
    if os.path.isabs(path):
        return path
    try:
        # Not abspath, which takes `link/..` for the directory that the link is in.
        return os.path.join(os.getcwdb(), path)
    except OSError as error:
        raise SettingsError(
            [f"can't tell where {os.fsdecode(path)!a} is: the working directory: {error.strerror}; name an absolute path"]
        ) from error
