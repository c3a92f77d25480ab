"""Runs a command as the terminal's foreground process group: `python examples/foreground.py COMMAND ...`.

`make` counts a Ctrl-C that reaches it as its own failure, however gracefully the command ends. In a process group of its
own, the command alone gets the Ctrl-C, and `make` its exit status.
"""

from __future__ import annotations

import os
import signal
import sys


def take_terminal() -> None:
    """Move this process into a group of its own, in the foreground, where there's a terminal and it is there already."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return
    except OSError:
        return
    os.setpgid(0, 0)
    previous = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # or the call would stop this process
    os.tcsetpgrp(terminal, os.getpgrp())
    signal.signal(signal.SIGTTOU, previous)


if __name__ == "__main__":
    take_terminal()
    os.execvp(sys.argv[1], sys.argv[1:])
