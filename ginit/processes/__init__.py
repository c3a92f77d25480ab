"""Processes: how they are started, how they end, and those that were left to ginit by their parents.

- `child`: one executable, started with a clean slate
- `diagnosis`: why one can't be started
- `reaper`: the only place that waits for processes
- `orphans`: reparented processes, and what the policy makes of them
- `adoption`: their output is brought into pipes of ginit's, by `ptrace/`
- `signals`: those that are sent to ginit
- `procfs`: what /proc says
"""
