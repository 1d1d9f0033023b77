"""One target and atheris, which takes the process over: `python -m tests.fuzz.feed TARGET SECONDS`.

Nothing of the package may be imported before atheris rewrites its modules to tell which of their lines ran.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LEARNT = ROOT / "build" / "fuzz"
BROKEN = ROOT / "tests" / "corpora" / "fuzz"
# Bytes of one input. What limits are about is tested by hand, and short inputs are many more a second.
LONGEST = 4096


def feed(name: str, seconds: int) -> None:
    """Does not return: libFuzzer ends the process, with a status other than 0 where the target raised."""
    try:
        import atheris
    except ImportError:
        raise SystemExit("fuzz: atheris is not installed; make fuzz installs it") from None

    with atheris.instrument_imports(include=["enforcer"]):
        from tests.fuzz.targets import TARGETS
    target, learnt, broken = TARGETS[name], LEARNT / name, BROKEN / name
    for directory in (learnt, broken):
        directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (learnt / f"seed-{number:04}").write_bytes(seed)
    words = LEARNT / f"{name}.words"
    words.write_text("".join(f'"{"".join(f"{chr(92)}x{byte:02x}" for byte in word)}"\n' for word in target.words))
    limits = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=2048"]
    files = [f"-dict={words}", f"-artifact_prefix={broken}/", str(learnt), str(broken)]
    atheris.Setup([name, *limits, *files], target.judge)
    atheris.Fuzz()


if __name__ == "__main__":
    feed(sys.argv[1], int(sys.argv[2]))
