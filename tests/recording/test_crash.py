"""kill -9 of a process that writes: what was promised is there, and the chain goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from enforcer.recording.reader import Reader
from enforcer.recording.verify import verify
from enforcer.recording.writer import Writer
from tests.recording.record_rows import exchange, written

CHILD = """
import sys, threading
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.recording.record_rows import exchange, outcome
from enforcer.recording.writer import Writer

writer = Writer(Path(sys.argv[1]))
room = threading.Semaphore(8)
number = int(sys.argv[2])

def promised(number):
    def on_commit(error):
        if error is None:
            sys.stdout.write(str(number) + "\\n")
            sys.stdout.flush()
        room.release()
    return on_commit

sys.stdout.write("ready\\n")
sys.stdout.flush()
while True:
    room.acquire()
    number += 1
    writer.submit([exchange(number), outcome(number)], promised(number))
"""


def test_killed_at_any_moment_every_promised_row_is_there_and_the_chain_continues(database: Path) -> None:
    """Six lives of one database, each ended by SIGKILL: acknowledged exchanges exist, and it always verifies."""
    pick = random.Random(11)
    promised: set[int] = set()
    for life in range(6):
        code = CHILD.format(root=str(Path(__file__).parents[2]))
        command = [sys.executable, "-c", code, str(database), str(life * 1_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(pick.uniform(0, 0.15))
            child.send_signal(signal.SIGKILL)
            promised.update(int(line) for line in child.stdout if line.endswith("\n"))
        assert verify(database).fault is None
    assert promised, "the child never wrote"
    writer = Writer(database)
    assert written(writer, [exchange(1)]) is None
    writer.close()
    report = verify(database)
    assert report.fault is None
    assert report.rows["exchanges"] == report.rows["outcomes"] + 1
    with Reader(database) as reader:
        reader_head = reader.head()
    assert reader_head == report.head
    assert promised <= numbers(database)


def numbers(database: Path) -> set[int]:
    with Reader(database) as reader:
        return {row["exchange"] for row in reader.exchanges("0123456789abcdef")}
