"""Fuzzing: one target a file, each a function that takes any bytes and raises where a promise breaks.

`make fuzz` feeds every target with atheris (coverage-guided); `make test` feeds the same functions with their seeds,
with what Hypothesis makes of them, and with every input that once failed (`tests/corpora/fuzz/TARGET/`).

A target is a module here that ends with

    TARGET = Target("name", judge, seeds, words)

and a line in `targets.py`. `judge` plays its bytes through our parser and holds what came out against a reader that
shares no code with it: a strict one of our own (`strict_http1`) or another project's. ProtocolError and LimitExceeded
are our parser's answers; any other exception, and any AssertionError, is a fault.
"""
