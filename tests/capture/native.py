"""Compiles small C programs against `bpf/` with the host's own compiler: what a header really says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from enforcer.capture.source import source_directory

PRELUDE = """
#include <linux/types.h>
#include <stddef.h>
#include <stdio.h>
#define bpf_htonl(x) __builtin_bswap32(x)
#include "abi.h"
#include "consts.h"
#include "decision.h"
"""


def build(folder: Path, body: str) -> Path:
    """A program that runs `body`, with every pure header of `bpf/` included."""
    source, program = folder / "program.c", folder / "program"
    source.write_text(f"{PRELUDE}\nint main(void)\n{{\n{body}\nreturn 0;\n}}\n")
    command = ["gcc", "-Wall", "-Wextra", "-Werror", "-I", str(source_directory()), "-o", str(program), str(source)]
    subprocess.run(command, check=True)
    return program


def run(program: Path, given: str = "") -> list[str]:
    """The words that the program prints."""
    return subprocess.run([program], input=given, capture_output=True, text=True, check=True).stdout.split()
