"""A `log/run` that passes on what it reads, and adds to the file `passed` of its directory how many bytes it has passed on.

    passer.py READS SIZE PAUSE LIMIT STATUS

It begins with READS reads of SIZE bytes, with PAUSE seconds after each. Having passed on LIMIT bytes it ends with STATUS, but
only the first time; a LIMIT of -1 is none. It ends with 0 where its stdin does.
"""

import os
import sys
import time


def pass_on(block):
    while block:
        block = block[os.write(1, block) :]


reads, size, pause, limit, status = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
if os.path.exists("passed"):
    limit = -1
passed = 0
while passed != limit:
    wanted = size if reads > 0 else 65536
    block = os.read(0, wanted if limit < 0 else min(wanted, limit - passed))
    if not block:
        status = 0
        break
    pass_on(block)
    passed += len(block)
    if reads > 0:
        reads -= 1
        time.sleep(pause)
with open("passed", "a") as file:
    file.write(f"{passed}\n")
os._exit(status)
