"""Services: one directory each, with its programs.

- `directory`: which services there are
- `service`: one of them, with all its processes and the pipe to its log program
- `programs`: `run` and `log/run`: how they are told to end, and what their ends mean
- `task`: a program that is kept as it's wanted
"""
