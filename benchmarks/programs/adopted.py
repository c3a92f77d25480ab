"""Starts daemons, one after the other, each of which says for how long it stood still when its stdout was redirected.

Arguments: how many, the mark before the time (nanoseconds, and behind it an `@`).
"""

import os
import sys
import time


def daemonize() -> int:
    """Fork twice, and return in the process that is left to PID 1; its parent gets its PID."""
    read_end, write_end = os.pipe()
    middle = os.fork()
    if middle:
        os.close(write_end)
        os.waitpid(middle, 0)
        pid = int(os.read(read_end, 20))
        os.close(read_end)
        return pid
    pid = os.fork()
    if pid:
        os.write(write_end, b"%d" % pid)
        os._exit(0)
    os.close(read_end)
    os.close(write_end)
    return 0


def measure(mark: bytes) -> None:
    """Look at the clock until stdout is another one, and tell the time between the last two looks."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    before = os.fstat(1).st_ino
    last = now = time.monotonic_ns()
    while os.fstat(1).st_ino == before:
        last, now = now, time.monotonic_ns()
    now = time.monotonic_ns()
    os.write(1, b"%b%d@\n" % (mark, now - last))


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


count, mark = int(sys.argv[1]), sys.argv[2].encode()
for _ in range(count):
    pid = daemonize()
    if not pid:
        measure(mark)
        os._exit(115)
    # PID 1 isn't told of a process that comes to it, but of one that ends.
    if not daemonize():
        time.sleep(0.015)
        os._exit(115)
    while is_alive(pid):
        time.sleep(0.002)
time.sleep(1000000)
