"""Diagnosis: why something can't be started, in words that say what to do."""

from __future__ import annotations

import errno
import os
import re

from ..text import printable


class StartError(Exception):
    """An executable that can't be started; the text names the file and the reason."""


#: Errors that the limits around ginit cause, not the executable.
_SHORTAGES: dict[int, str] = {
    errno.EAGAIN: "no more processes are allowed; raise the limit (docker run --pids-limit, ulimit -u)",
    errno.ENOMEM: "there is no memory left; raise the limit (docker run --memory)",
    errno.EMFILE: "too many open files; raise the limit (docker run --ulimit nofile=..., ulimit -n)",
    errno.ENFILE: "too many open files in the whole system; raise fs.file-max",
}


def shortage(error: BaseException) -> str | None:
    """What there is too little of, and what to do, where that is why something failed; None where it isn't."""
    return _SHORTAGES.get(error.errno or 0) if isinstance(error, OSError) else None


_INTERPRETER = re.compile(rb"#![ \t]*([^ \t\n\0]+)")


def why_not_started(executable: bytes, directory: bytes, error: OSError) -> str:
    """Why `executable` can't be started; the error alone doesn't say which of the files it is about."""
    return shortage(error) or _missing(executable, directory) or _unusable(executable, error)


def _missing(executable: bytes, directory: bytes) -> str | None:
    try:
        os.stat(os.path.join(directory, b"."))
    except PermissionError:
        return f"its directory {printable(directory)} may not be entered"
    except OSError:
        return f"its directory {printable(directory)} doesn't exist"
    if not os.path.lexists(executable):
        return "it doesn't exist"
    if not os.path.exists(executable):
        return "it is a link to nowhere"
    if not os.path.isfile(executable):
        return "it isn't a file"
    return None


def _unusable(executable: bytes, error: OSError) -> str:
    interpreter = _interpreter(executable)
    if error.errno == errno.ENOENT:
        if interpreter is None:
            return "its dynamic loader doesn't exist"
        if os.path.exists(interpreter):
            return f"its interpreter {printable(interpreter)} needs a file that doesn't exist"
        advice = "; its first line ends as on Windows, with a carriage return" if interpreter.endswith(b"\r") else ""
        return f"its interpreter {printable(interpreter)} doesn't exist{advice}"
    if error.errno == errno.EACCES:
        if not os.access(executable, os.X_OK):
            return "it isn't executable (chmod +x)"
        if interpreter is not None and not os.access(interpreter, os.X_OK):
            return f"its interpreter {printable(interpreter)} isn't executable"
        return "permission denied; its file system may be mounted noexec"
    if error.errno == errno.ENOEXEC:
        return "it has no #! line and isn't a program for this machine"
    return error.strerror or str(error)


def _interpreter(executable: bytes) -> bytes | None:
    try:
        with open(executable, "rb") as file:
            match = _INTERPRETER.match(file.read(256))  # the kernel looks no farther (BINPRM_BUF_SIZE)
    except OSError:
        return None
    return match[1] if match else None
