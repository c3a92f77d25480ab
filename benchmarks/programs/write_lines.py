"""Writes its second argument as a line, as often as the first says, each by a write(2) of its own."""

import os
import sys

line = sys.argv[2].encode() + b"\n"
write = os.write
for _ in range(int(sys.argv[1])):
    write(1, line)
