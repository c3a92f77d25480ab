"""A service's `run` that prints what is in the files `out` and `err` of its directory, and writes down how much it has printed.

    printer.py ORDER CHUNK SEED END

ORDER says which stream comes first, `out` or `err`, or that they are `mixed`. No write takes more than CHUNK bytes. END is the
exit status, or the number of a signal with a minus before it by which it ends itself, or `stays`. On TERM it stops between two
writes, and ends with 0. Started a second time, it prints nothing more and ends with 0.
"""

import itertools
import os
import random
import signal
import sys

told = False


def stop(_signum, _frame):
    global told
    told = True


def read(name):
    with open(name, "rb") as file:
        return file.read()


def chunks(fd, data):
    """The stream `fd` in pieces of any size."""
    data = memoryview(data)
    while data:
        size = drawn.randint(1, chunk)
        yield fd, data[:size]
        data = data[size:]


def in_turns(*streams):
    """All of the streams' pieces; which stream comes next is drawn."""
    left = [iter(stream) for stream in streams]
    while left:
        stream = drawn.choice(left)
        try:
            yield next(stream)
        except StopIteration:
            left.remove(stream)


def print_all(pieces):
    """Print the pieces till TERM comes; return how many bytes of each stream were printed."""
    printed = {1: 0, 2: 0}
    closed = set()
    for fd, piece in pieces:
        while piece and fd not in closed and not told:
            try:
                size = os.write(fd, piece)
            except BrokenPipeError:  # the log program has gone
                closed.add(fd)
                break
            printed[fd] += size
            piece = piece[size:]
    return printed


signal.signal(signal.SIGTERM, stop)
order, chunk, seed, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
drawn = random.Random(seed)
if os.path.exists("printed"):
    sys.exit(0)
open("started", "w").close()
out, err = chunks(1, read("out")), chunks(2, read("err"))
pieces = {"mixed": in_turns(out, err), "out": itertools.chain(out, err), "err": itertools.chain(err, out)}[order]
printed = print_all(pieces)
with open("printed", "w") as file:
    file.write(f"{printed[1]} {printed[2]}")
# From here on a TERM changes nothing, but for the one that is waited for.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
if end == "stays" and not told:
    signal.sigwait([signal.SIGTERM])
elif not told and end.startswith("-"):
    if end != "-9":
        signal.signal(-int(end), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.kill(os.getpid(), -int(end))
os._exit(0 if told or end == "stays" else int(end))
