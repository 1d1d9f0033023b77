"""Isolated mode: an executor in namespaces of its own, with nothing to get out by.

start        puts the steps in order: the first process, then the command
filesystem   what the executor sees of the host's files, and what it may write
syscalls     the seccomp filter, as a table with its reasons
descriptors  what it inherits from the caller
terminal     job control between the caller's shell and the command
kernel       the system calls that Python has no function for
"""
