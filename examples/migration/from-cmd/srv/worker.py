"""The worker: does one job after the other, and finishes the one it has begun on TERM."""

import itertools
import signal
import threading

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
for job in itertools.count(1):
    print(f"job {job} is done", flush=True)
    if stop.wait(1):
        break
print("the worker leaves, no job is lost", flush=True)
