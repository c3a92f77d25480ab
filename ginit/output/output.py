"""Output: which stamp a stream's lines get, and where they go."""

from __future__ import annotations

from typing import Callable

import gevent

from ..settings import Settings
from . import lines
from .lines import Framer, Stamp
from .log import Log, Subject
from .pump import Pump
from .streams import LineStream, ObjectStream, Source, Stream
from .writer import open_writers


class Output:
    """All that ginit writes: the services' streams and its own messages, on stdout and stderr."""

    def __init__(
        self, settings: Settings, failed: Callable[[str, OSError], None], unexpected: Callable[[Exception], None]
    ) -> None:
        """
        Args:
            settings: the formats and limits.
            failed: called with `stdout` or `stderr` and the error when that can't be written to any more.
            unexpected: called with each unexpected error. What is queued is written all the same.

        Raises:
            OSError: stdout or stderr isn't open.
        """
        self._settings = settings
        self._unexpected = unexpected
        self._stdout, self._stderr = open_writers(failed, unexpected)
        #: One where both are one file.
        self._writers = list(dict.fromkeys((self._stdout, self._stderr)))
        self._pumps: dict[Pump, Stream] = {}
        self.log = Log(self._stderr, settings.log_level, settings.log_format, unexpected)

    def pump_stdout(self, fd: int, service: bytes, stage: str) -> None:
        """Pass on, until it ends, the stream in the pipe `fd`, the stdout of a process of `service`."""
        subject = Subject(service, stage)
        source = Source(subject, "stdout")
        if self._settings.json_stdout:
            stamp = self._misfit_stamp(subject)
            self._start(fd, ObjectStream(source, self._framer(), self._stdout, _fields(subject), self._stderr, stamp))
        else:
            self._start(fd, LineStream(source, self._framer(), self._stdout, lines.text_stamp(str(subject))))

    def pump_stderr(self, fd: int, service: bytes, stage: str) -> None:
        """Pass on, until it ends, the stream in the pipe `fd`, the stderr of a process of `service`."""
        source = Source(Subject(service, stage), "stderr")
        self._start(fd, LineStream(source, self._framer(), self._stderr, self._line_stamp(source.subject, source.name)))

    @property
    def waited_for(self) -> list[str]:
        """The readers that haven't taken everything yet."""
        named = {"stdout": self._stdout, "stderr": self._stderr}
        return [f"the reader of {name}" for name, writer in named.items() if writer.pending]

    def end_streams(self) -> None:
        """Pass on what can be read still, until it's written or its reader has shown to be gone.

        To be called when no process runs any more that ginit waits for.
        """
        watches = [gevent.spawn(writer.give_up_when_stuck, self._settings.drain_timeout) for writer in self._writers]
        try:
            for pump in list(self._pumps):
                pump.finish()
            gevent.joinall([pump.greenlet for pump in self._pumps])
        finally:
            gevent.killall(watches)

    def flush(self) -> int:
        """Wait until everything is written, or its reader has shown to be gone.

        Returns:
            The number of bytes that were given up.
        """
        for pump, stream in list(self._pumps.items()):  # those that an error has left behind
            stream.lost += pump.unread()
            self._tell_loss(stream)
        self.log.close()
        timeout = self._settings.drain_timeout
        lost = 0
        for writer in self._writers:  # stderr's last, which is told of stdout's loss
            given_up = writer.close(timeout)
            if given_up and writer is not self._stderr:
                self.log.error(f"gave up {given_up} bytes of output: {writer.broken}")
            lost += given_up
        return lost

    def _framer(self) -> Framer:
        return Framer(self._settings.max_line)

    def _start(self, fd: int, stream: Stream) -> None:
        pump = Pump(fd, stream, self._unexpected)
        self._pumps[pump] = stream
        pump.greenlet.rawlink(lambda _: self._ended(pump))

    def _ended(self, pump: Pump) -> None:
        stream = self._pumps.pop(pump)
        stream.lost += pump.left_behind
        self._tell_loss(stream)

    def _tell_loss(self, stream: Stream) -> None:
        if stream.lost > 0:
            subject, name = stream.source
            self.log.error(f"up to {stream.lost} bytes of its {name} are lost by an unexpected error", subject)
            stream.lost = 0

    def _line_stamp(self, subject: Subject, stream: str) -> Stamp:
        """The stamp of a service's line on stderr."""
        if self._settings.log_format == "text":
            return lines.text_stamp(str(subject))
        return lines.message_stamp(_fields(subject) + b"," + lines.member("stream", stream))

    def _misfit_stamp(self, subject: Subject) -> Stamp:
        """The stamp of a line on stdout that should be JSON and isn't."""
        opening = "not JSON on stdout: "
        if not self.log.shows("warn"):
            return self._line_stamp(subject, "stdout")
        if self._settings.log_format == "text":
            return lines.text_stamp(f"ginit: warn: {subject}: {opening[:-2]}")
        return lines.message_stamp(lines.member("level", "warn") + b"," + _fields(subject), opening)


def _fields(subject: Subject) -> bytes:
    return lines.member("service", subject.service) + b"," + lines.member("stage", subject.stage)
