"""The very first instructions: block the signals, shed what would bend ginit, patch, then `ginit.cli`.

Nothing here may import a module that an application's directory could replace, until the path is clean: `_signal`,
`posix` and `sys` are built into the interpreter, `os` was loaded by it before.
"""

import _signal  # type: ignore[import-not-found]
import os
import posix
import sys

TYPE_CHECKING = False  # not from `typing`, which an application's directory could replace
if TYPE_CHECKING:
    from typing import Dict, NoReturn

#: `PYTHON*` variables that many images set and that change nothing in ginit: it uses no text streams, compares no hashes
#: and writes no bytecode; the rest are notes that the official Python images leave. Any other one costs a second start of
#: the interpreter, which ignores them all.
HARMLESS = frozenset(
    (
        b"PYTHONUNBUFFERED",
        b"PYTHONDONTWRITEBYTECODE",
        b"PYTHONHASHSEED",
        b"PYTHONIOENCODING",
        b"PYTHON_VERSION",
        b"PYTHON_SHA256",
        b"PYTHON_PIP_VERSION",
        b"PYTHON_SETUPTOOLS_VERSION",
        b"PYTHON_GET_PIP_URL",
        b"PYTHON_GET_PIP_SHA256",
    )
)


#: Of the interpreter (-X): by which ginit learns, when it's started again, what it was called by.
_NAME_OPTION = "ginit-name"


def main() -> "NoReturn":
    """Run ginit with this process's arguments and environment, and exit."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    environ = original_environ()
    # What ginit was called by, in its first start; the second one is told.
    called_as = str(sys._xoptions.get(_NAME_OPTION, os.path.basename(sys.argv[0])))  # noqa: SLF001
    isolate(environ, called_as)
    sys.dont_write_bytecode = True  # a container's file system is not ours to write to
    for name in list(os.environ):
        # gevent and libev read these when they are imported; only the services are meant by them.
        if name.startswith("GEVENT_") or name == "LIBEV_FLAGS":
            del os.environ[name]
    try:
        import time

        begun = time.process_time()
        from ginit import cli, patching

        patching.patch_signal()
    except ImportError as error:
        sys.exit(f"ginit: error: {sys.executable} can't import what ginit needs: {error}; it takes gevent and python-json-logger")
    status = cli.main(called_as, sys.argv[1:], environ, time.process_time() - begun)
    # Everything is written and every process is waited for. The interpreter's own clean-up would only take time, or wait
    # for a thread that is stuck in a write to a reader who has left.
    os._exit(status)


def original_environ() -> "Dict[bytes, bytes]":
    """The environment as this process was given it, which the kernel knows.

    An interpreter that is started in the C locale sets `LC_CTYPE` in its own (PEP 538), and an application's
    `sitecustomize` may set anything.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = [entry.partition(b"=") for entry in file.read().split(b"\0")]
    except OSError:
        return dict(posix.environ)
    # Of two entries for one name the first counts, as it does for getenv(3).
    return {name: value for name, equals, value in reversed(entries) if equals}


def isolate(environ: "Dict[bytes, bytes]", called_as: str = "ginit") -> None:
    """See to it that modules come from the installation alone, and that no `PYTHON*` variable bends the interpreter.

    Such a variable has had its effect by now, so the interpreter is started again, isolated; blocked signals and the
    pending ones survive that.
    """
    if not sys.flags.isolated:
        bent = any(name.startswith(b"PYTHON") and value and name not in HARMLESS for name, value in environ.items())
        if bent and sys.executable:
            arguments = [sys.executable, "-I", f"-X{_NAME_OPTION}={called_as}", os.path.abspath(__file__), *sys.argv[1:]]
            posix.execve(sys.executable, arguments, environ)
        if not getattr(sys.flags, "safe_path", False):
            del sys.path[0]  # the script's directory, or with -m the working directory
    # Where ginit was found by a path that is gone now (`pip install --user` or `--target`, a checkout), it and its
    # dependencies are found there still, but behind everything else.
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if home not in sys.path:
        sys.path.append(home)


if __name__ == "__main__":
    main()
