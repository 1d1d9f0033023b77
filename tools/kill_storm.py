"""kill -9 of the supervisor at random moments, under fire: `make storm`, or tools/kill_storm.py [--kills N].

An isolated and an attached executor connect to a denied site as fast as a thousand times a second, while policies are
reloaded and the supervisor is killed over and over, also while it starts. Then nothing may have arrived there, each
hook has one program, the kernel holds no more maps and programs of ours than before (so run nothing else of the
enforcer's meanwhile), and the counters went on. Takes about two seconds a kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from enforcer.capture import cgroup
from enforcer.demo.instance import Instance, shipped_policies
from enforcer.demo.world import FRANKFURT, VIRGINIA, World, stop
from enforcer.errors import NotRunning

POLICY = """
policy: storm
applies_to: [{{executor: "*"}}, {{cgroup: "{slice}/agent-*.service"}}]
rules:
  - name: germany
    to: {{region: [DE], protocol: [http]}}
    action: allow
  - name: elsewhere
    to: {{region: [US]}}
    action: deny
"""
RATE = 500
# Connects to the denied site at RATE, now and then by UDP as well; says at the end how often, and what came of it.
FIRE = f"""
import collections, json, os, select, signal, socket, sys, time
outcomes, stop = collections.Counter(), []
signal.signal(signal.SIGUSR1, lambda *_: stop.append(1))
number = 0
begun = time.monotonic()
while not stop:
    number += 1
    try:
        if number % 50 == 0:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"storm", (sys.argv[1], 4444))
            outcomes["sent"] += 1
        else:
            with socket.socket() as sock:
                sock.settimeout(0.5)
                sock.connect((sys.argv[1], 80))
                sock.sendall(b"GET /storm HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            outcomes["connected"] += 1
    except OSError as error:
        outcomes[type(error).__name__] += 1
    ahead = begun + number / {RATE} - time.monotonic()
    if ahead > 0:
        time.sleep(ahead)
with open(sys.argv[2], "w") as stream:
    json.dump([number, outcomes], stream)
"""


class Storm:
    """The world, the enforcer in it, and who fires."""

    def __init__(self, stack: ExitStack, seed: int) -> None:
        self.chance = random.Random(seed)
        slice_ = cgroup.find_mount() / f"enfstorm{secrets.token_hex(3)}.slice"
        slice_.mkdir()
        stack.callback(cgroup.remove, slice_)
        self.group = slice_ / "agent-1.service"
        self.group.mkdir()
        self.world = stack.enter_context(World(FRANKFURT, VIRGINIA))
        self.world.nginx(VIRGINIA, "location / { return 200 'reached'; }")
        self.instance = Instance(self.world, policies=["storm"], packs=shipped_policies(), user="nobody")
        self.instance.root.chmod(0o755)
        policy = self.instance.root / "etc/enforcer/policies/storm.yaml"
        policy.write_text(POLICY.format(slice=slice_.name))
        stack.enter_context(self.instance)
        self.counters: dict[str, int] = {}
        self.deaths = 0

    def fire(self, stack: ExitStack) -> list[tuple[subprocess.Popen[bytes], Path]]:
        """Both executors; each writes what came of its attempts to a file when told to stop."""
        started = []
        for name, prefix in (
            ("attached", ["sh", "-c", f'echo $$ > {self.group}/cgroup.procs; exec "$@"', "sh"]),
            ("isolated", self.instance.command("exec", "--user", "nobody", "--name", "storm", "--")),
        ):
            outcome = self.world.directory / f"{name}.json"
            outcome.touch()
            outcome.chmod(0o666)
            command = self.world.command("host", *prefix, sys.executable, "-c", FIRE, VIRGINIA.address, str(outcome))
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            stack.callback(stop, process)
            started.append((process, outcome))
        return started

    def once(self) -> None:
        """One death: after up to three seconds of the supervisor's life, which its start is part of."""
        life = self.chance.uniform(0.05, 3.0)
        self.instance.kill()
        self.deaths += 1
        starter = threading.Thread(target=self._start)
        begun = time.monotonic()
        starter.start()
        while (left := begun + life - time.monotonic()) > 0:
            time.sleep(min(left, self.chance.uniform(0.05, 0.4)))
            if not starter.is_alive():
                with suppress(NotRunning, ProcessLookupError):
                    os.kill(self.instance.pid, signal.SIGHUP)
        if starter.is_alive():
            self.instance.kill()
        starter.join()

    def _start(self) -> None:
        with suppress(Exception):  # killed while it starts
            self.instance.start()

    def check_counters(self) -> list[str]:
        now = self.instance.status()["counters"]
        back = [name for name, value in self.counters.items() if now[name] < value]
        self.counters = now
        return back


def objects() -> dict[str, int]:
    """How many programs and maps of ours the kernel holds, by name."""
    counts: dict[str, int] = {}
    for kind in ("prog", "map"):
        listed = subprocess.run(["bpftool", "-j", kind, "list"], capture_output=True, text=True, check=True).stdout
        for one in json.loads(listed):
            key = f"{kind} {one.get('name', '')}"
            counts[key] = counts.get(key, 0) + 1
    return counts


def run(kills: int, seed: int) -> list[str]:
    """The storm; what broke, in words."""
    faults: list[str] = []
    with ExitStack() as stack:
        storm = Storm(stack, seed)
        witnesses = [(address, storm.world.witness(VIRGINIA)) for address in (VIRGINIA.address, VIRGINIA.address6)]
        before, programs = objects(), storm.instance.status()["programs"]
        begun = time.monotonic()
        firing = storm.fire(stack)
        while not storm.instance.status()["executors"]:
            time.sleep(0.1)
        time.sleep(3)  # until the isolated one fires as well
        while storm.deaths < kills:
            storm.once()
            if storm.deaths % 20 == 0:
                if not _running(storm.instance):
                    storm._start()
                faults += [f"counter {name} went back" for name in storm.check_counters()]
                print(f"{storm.deaths} kills, {time.monotonic() - begun:.0f} s", flush=True)
        if not _running(storm.instance):
            storm.instance.start()
        attempts = 0
        for process, outcome in firing:
            if process.poll() is not None:
                faults.append(f"an executor ended with {process.returncode}")
                continue
            process.send_signal(signal.SIGUSR1)
            process.wait(20)
            number, outcomes = json.loads(outcome.read_text())
            attempts += number
            print(f"{outcome.stem}: {number} attempts, {outcomes}")
        arrived = [line for address, witness in witnesses for line in witness.arrived(address)]
        faults += [f"arrived: {line}" for line in arrived]
        time.sleep(1)
        if (now := storm.instance.status()["programs"]) != programs:
            faults.append(f"programs are {now}")
        faults += [
            f"{name}: {count}, were {before.get(name, 0)}"
            for name, count in objects().items()
            if count > before.get(name, 0)
        ]
        faults += [f"counter {name} went back" for name in storm.check_counters()]
        seconds = time.monotonic() - begun
        rate = f"{attempts} attempts ({attempts / seconds:.0f}/s)"
        print(f"{storm.deaths} kills in {seconds:.0f} s, {rate}, {len(arrived)} packets arrived")
    return faults


def _running(instance: Instance) -> bool:
    try:
        instance.status()
    except NotRunning:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    faults = run(options.kills, options.seed)
    for fault in faults:
        print(f"FAULT {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
