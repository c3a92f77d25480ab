"""Standing in for runit: what runsvdir(8) and runsv(8) do that ginit by itself doesn't.

- `command`: the command line of runsvdir
- `rescan`: new services are started, and removed ones stopped
- `controls`: what sv(8) writes is done, and what it reads is kept up to date
- `supervise`: the files for that, opened and written with care
"""
