"""ginit's own messages."""

from __future__ import annotations

import time
import traceback
from typing import Callable

from ..settings import LEVELS
from ..text import printable, timestamp
from .writer import Writer

#: Bytes of ginit's own messages and the services' lines that may wait for stderr before ginit's own are left out.
_LIMIT = 4 * 1024 * 1024


class Subject:
    """Whom a message is about: a process's service and stage."""

    __slots__ = ("pid", "service", "stage")

    def __init__(self, service: bytes, stage: str, pid: int | None = None) -> None:
        self.service = printable(service)
        self.stage = stage
        self.pid = pid

    def __str__(self) -> str:
        return f"{self.service}/{self.stage}"


class Log:
    """Writes ginit's own messages to stderr, each a line.

    Neither blocks, and so may be called in the hub, nor raises an error: what ginit does must not depend on what it says.
    Where stderr's reader is so slow that megabytes wait for it, messages are left out, and their number is told later.
    """

    def __init__(self, writer: Writer, level: str, form: str, failed: Callable[[Exception], None]) -> None:
        """
        Args:
            writer: stderr's.
            level: the least important level to show, of `settings.LEVELS`.
            form: `text` or `json`.
            failed: called with the unexpected error when a message can't be written; may write messages itself.
        """
        self._writer = writer
        self._shown = LEVELS.index(level)
        self._left_out = 0
        self._failed = failed
        self._format = formatter(form)

    def shows(self, level: str) -> bool:
        """Whether messages of `level` are shown."""
        return LEVELS.index(level) <= self._shown

    def error(self, message: str, subject: Subject | None = None) -> None:
        """Say that something has failed."""
        self._say("error", message, subject)

    def warn(self, message: str, subject: Subject | None = None) -> None:
        """Say what a person should look into."""
        self._say("warn", message, subject)

    def info(self, message: str, subject: Subject | None = None) -> None:
        """Say what ginit does."""
        self._say("info", message, subject)

    def debug(self, message: str, subject: Subject | None = None) -> None:
        """Say what a developer of ginit wants to know."""
        self._say("debug", message, subject)

    def why_stopping(self, message: str, subject: Subject, *, failure: bool) -> None:
        """Say why everything is stopped: as a warning, or for a failure as an error where warnings aren't shown."""
        self._say("error" if failure and not self.shows("warn") else "warn", message, subject)

    def trace(self, error: BaseException, subject: Subject | None = None) -> None:
        """Write the traceback of an error, for debugging."""
        for line in traceback.format_exception(type(error), error, error.__traceback__):
            for part in line.splitlines():
                self.debug(part, subject)

    def close(self) -> None:
        """Say what was left out last."""
        try:
            self._tell_left_out()
        except Exception as error:  # noqa: BLE001
            self._failed(error)

    def _say(self, level: str, message: str, subject: Subject | None) -> None:
        try:
            self._write(level, message, subject)
        except Exception as error:  # noqa: BLE001
            self._failed(error)

    def _write(self, level: str, message: str, subject: Subject | None) -> None:
        if not self.shows(level):
            return
        if self._writer.pending > _LIMIT:
            self._left_out += 1
            return
        self._tell_left_out()
        self._writer.put(self._format(level, message, subject))

    def _tell_left_out(self) -> None:
        if self._left_out:
            count, self._left_out = self._left_out, 0
            # Whatever the level: what is left out would have been shown.
            self._writer.put(self._format("warn", f"stderr was blocked; {count} messages of ginit's are left out here", None))


def formatter(form: str) -> Callable[[str, str, Subject | None], bytes]:
    """What makes a line of a level, a message and whom it is about.

    Args:
        form: `text` or `json`.
    """
    return _format_text if form == "text" else _JsonFormat()


def _format_text(level: str, message: str, subject: Subject | None) -> bytes:
    label = f"{subject}: " if subject else ""
    if subject and subject.pid is not None and subject.stage != str(subject.pid):
        # Messages are made so: first what has happened, then, behind a semicolon, what comes of it.
        what, semicolon, consequence = message.partition("; ")
        message = f"{what} (PID {subject.pid}){semicolon}{consequence}"
    text = printable(message.encode("utf-8", "backslashreplace"))
    return timestamp(time.time()) + f" ginit: {level}: {label}{text}\n".encode()


class _JsonFormat:
    """Messages as python-json-logger formats them."""

    def __init__(self) -> None:
        import logging  # with the formatter 20 ms, which only those pay who want it

        from pythonjsonlogger.json import JsonFormatter

        self._make_record = logging.makeLogRecord
        self._formatter = JsonFormatter(json_ensure_ascii=False)

    def __call__(self, level: str, message: str, subject: Subject | None) -> bytes:
        fields: dict[str, str | int] = {"msg": message, "level": level}
        if subject:
            fields.update(service=subject.service, stage=subject.stage)
            if subject.pid is not None:
                fields.update(pid=subject.pid)
        fields.update(logged=timestamp(time.time()).decode())
        return (self._formatter.format(self._make_record(fields)) + "\n").encode("utf-8", "backslashreplace")
