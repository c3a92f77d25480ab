"""Writes a line with the time now and then, as a service does that has little to say, and then stays.

Arguments: the number of lines, the seconds between two, the mark before the time (nanoseconds on the monotonic clock).
"""

import os
import sys
import time

count, pause, mark = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3].encode()
time.sleep(0.5)  # the others are to be at it
for _ in range(count):
    time.sleep(pause)
    os.write(1, b"%b%d@\n" % (mark, time.monotonic_ns()))
time.sleep(1000000)
