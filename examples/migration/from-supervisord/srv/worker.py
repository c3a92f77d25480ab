"""The worker: a job is a file in $QUEUE. It finishes the one it has begun on TERM."""

import os
import signal
import threading
from pathlib import Path

queue = Path(os.environ["QUEUE"])
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
print(f"waiting for jobs in {queue}", flush=True)
while not stop.wait(0.2):
    for job in sorted(queue.iterdir()):
        job.unlink()
        print(f"{job.name} is done", flush=True)
print("the worker leaves, no job is lost", flush=True)
