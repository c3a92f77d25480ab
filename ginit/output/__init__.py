"""The way of a line, from a service's pipe to descriptor 1 or 2.

- `output`: which stamp a stream gets, and which writer takes it
- `streams`: a process's stdout or stderr, what a pump fills
- `pump`: reads one pipe in blocks
- `lines`: framing and stamping; no I/O
- `writer`: the one way to a destination, bounded and in order; knows no services
- `destinations`: the kinds of file that can be stdout or stderr, none of which holds the hub up
- `log`: ginit's own messages
- `pipes`: what a pipe holds
"""
