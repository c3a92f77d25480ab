"""Starts its arguments, a process each, and ends them on TERM: the loop that a process manager is compared with."""

import os
import signal
import subprocess
import sys

# A handler and a pipe, not a blocked signal, which the processes would inherit.
told, tell = os.pipe()
os.set_blocking(tell, False)
signal.set_wakeup_fd(tell)
signal.signal(signal.SIGTERM, lambda *_: None)

processes = [subprocess.Popen([path], stdin=subprocess.DEVNULL) for path in sys.argv[1:]]
os.read(told, 1)
for process in processes:
    process.terminate()
for process in processes:
    process.wait()
