"""Redirecting the output of a process while it runs, by ptrace(2). `docs/explanation/adopting.md` says how.

The way in is `redirection.redirect`, in a thread of its own. Each room knows only those below it:

- `redirection`: hands pipes over to a process, and to its descendants;
- `descriptors`: which descriptors are to be replaced;
- `remote`: system calls made by a process that stands still;
- `processes`: a process with all its threads stands still, or why that can't be;
- `tracee`: one of its threads;
- `architectures`: registers and numbers;
- `linux`: the tracer's own system calls;
- `errors`: why it can't be done.
"""
