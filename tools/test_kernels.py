"""Boots another kernel in an emulator over this host's own files, and runs the kernel tests and the escape probe on it.

The files are this host's, read-only: all that the emulated machine writes goes to its memory and ends with it. Kernel
and headers are Debian's packages, unpacked under `build/kernels`; nothing of them is installed here. What is run there
ends with its own status, and so does this program: a machine that does not boot, hangs, or ends without telling a
status is a failure.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
GUEST = CHECKOUT / "tools/test_kernels_guest.sh"
CACHE = CHECKOUT / "build/kernels"
# Below a kernel's own directory: the programs that were compiled for it, which takes minutes there. Each is named by
# what it was made of; see enforcer/capture/image.py.
IMAGES = "programs"
ARCHITECTURE = "amd64"
NOT_SOURCES = (".git", ".venv", "build", ".mypy_cache", ".ruff_cache", ".hypothesis")
# The emulator; a shell for the first moments of the boot; the tool that lists a kernel's modules.
PACKAGES = {"qemu-system-x86": "qemu-system-x86_64", "busybox-static": "busybox", "kmod": "depmod"}
# What takes minutes, or shows only what a compiler does, is run on the host's own kernel.
WHICH = "kernel and not full and not compiler"
# About ten seconds were measured on a quiet machine.
BOOT_LIMIT = 300.0
MEMORY = "4G"
# What costs an emulator most: string instructions, byte by byte, which kernel and C library prefer where they are said
# to be fast (a third of a fork()), and wide vectors, which they prefer too; a fifth level of page tables and further
# checks at every access to memory (together a quarter of what Python takes to start); a clock that is a device; detours
# against speculation that it does not do.
PROCESSOR = "max,-erms,-fsrm,-avx,-avx2,-la57,-smap,-smep,-pku"
KERNEL_OPTIONS = "clocksource=tsc tsc=reliable mitigations=off"
# Of the kernel's messages: what is kept, and what is shown when the machine ends badly.
CONSOLE_BYTES = 65536
CONSOLE_LINES = 60


class KernelTestError(Exception):
    """What is wrong; what mends it."""


def main() -> int:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))  # by way of the clean-up
    try:
        if os.geteuid() != 0:
            raise KernelTestError("must be root; use sudo")
        if run("dpkg", "--print-architecture").strip() != ARCHITECTURE:
            raise KernelTestError(f"only written for {ARCHITECTURE}; elsewhere, use the machines of vagrant/")
        install_emulator()
        image = unpack_kernel(stock_version() if options.kernel == "stock" else options.kernel)
        return boot_and_run(image, commands(options), options)
    except KernelTestError as error:
        print(f"test-kernels: {error}", file=sys.stderr)
        return 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--kernel", default="stock", help="'stock' (the one this Debian release installs) or a version: 6.1.0-56-amd64"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--select", metavar="ARGUMENTS", help="run only pytest with these: 'tests/bpf -k udp'")
    what.add_argument("--shell", metavar="COMMAND", help="run only this shell command")
    parser.add_argument("--timeout", type=float, default=14400.0, help="seconds for everything (default %(default)s)")
    parser.add_argument("--cpus", type=int, default=2, help="processors of the emulated machine (default %(default)s)")
    parser.add_argument("--append", default="", help="more for the kernel's command line")
    return parser.parse_args()


def commands(options: argparse.Namespace) -> str:
    """The shell script to run there. Each part runs, whatever became of the one before; the first failure is told."""
    if options.shell:
        return f"{options.shell}\n"
    # Each test is named before it begins and told at once when it fails: the machine may not live to the end.
    pytest = "python -m pytest -v --tb=short --durations=15 -p no:cacheprovider -p tests.kernels.told_at_once"
    if options.select:
        return f"{pytest} {options.select}\n"
    # Named files: to import all the others would take longer than these tests do.
    marked = [path for path in sorted(CHECKOUT.glob("tests/**/test_*.py")) if "pytest.mark.kernel" in path.read_text()]
    files = shlex.join(str(path.relative_to(CHECKOUT)) for path in marked)
    return f"""\
echo "$(uname -sr), security modules $(cat /sys/kernel/security/lsm)"
{pytest} --numprocesses {options.cpus} --dist loadfile -m '{WHICH}' {files}
tests=$?
for mode in isolated attached; do
    enforcer probe --mode $mode --report $mode.json
done
echo "on $(uname -r):"
python -m tests.kernels.judge isolated.json attached.json
probe=$?
echo "kernel tests ended with $tests, the judgement of the escape probe with $probe"
[ $tests -ne 0 ] && exit $tests
exit $probe
"""


def install_emulator() -> None:
    missing = [package for package, program in PACKAGES.items() if shutil.which(program, path=search_path()) is None]
    if missing:
        print(f"test-kernels: installing {' '.join(missing)}", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "-qq", "update", env=environment)
        run("apt-get", "-qq", "install", "-y", "--no-install-recommends", *missing, env=environment)
    if not (CHECKOUT / ".venv/bin/vng").exists():
        raise KernelTestError("virtme-ng is not in .venv; make setup")


def stock_version() -> str:
    """Version of the kernel that `linux-image-ARCH` stands for in this Debian release, from apt's own knowledge."""
    package = f"linux-image-{ARCHITECTURE}"
    for line in run("apt-cache", "depends", "--important", package).splitlines():
        if line.strip().startswith("Depends: linux-image-"):
            return line.split("linux-image-", 1)[1].strip()
    raise KernelTestError(f"apt knows no {package}; apt-get update")


def unpack_kernel(version: str) -> Path:
    """The kernel image of `version`, with its modules and headers beside it, downloaded unless they are there."""
    home = CACHE / version
    image = home / f"boot/vmlinuz-{version}"
    if image.exists():
        return image
    print(f"test-kernels: fetching kernel {version}", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    common = version.removesuffix(f"-{ARCHITECTURE}") + "-common"
    with tempfile.TemporaryDirectory(dir=CACHE) as downloads:
        names = [f"linux-image-{version}", f"linux-headers-{version}", f"linux-headers-{common}"]
        run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *names, cwd=downloads)
        tree = Path(downloads) / version
        for package in sorted(Path(downloads).glob("*.deb")):
            run("dpkg-deb", "-x", str(package), str(tree))
        # The packages' links lead to an installed /usr/src; these stay within the unpacked tree.
        for link, target in (("build", f"linux-headers-{version}"), ("source", f"linux-headers-{common}")):
            path = tree / "lib/modules" / version / link
            path.unlink(missing_ok=True)
            path.symlink_to(Path("../../../usr/src") / target)
        run("depmod", "-a", "-b", str(tree), version)
        tree.rename(home)
    return image


def boot_and_run(image: Path, script: str, options: argparse.Namespace) -> int:
    """Boots `image`, runs `script` there with its output going here, and returns its status."""
    with tempfile.TemporaryDirectory(prefix="test-kernels-", dir="/tmp") as shared:
        directory = Path(shared)
        (directory / "command").write_text(script)
        (directory / "output").touch()
        # The sources as they are now, this script's other half included: somebody may go on editing them.
        shutil.copy(GUEST, directory / "guest")
        pack(CHECKOUT, directory / "tree")
        images = image.parent.parent / IMAGES
        images.mkdir(exist_ok=True)
        shutil.copytree(images, directory / IMAGES)
        machine = Machine(emulator(image, directory, options), directory)
        try:
            machine.watch(options.timeout)
            return machine.status()
        except KernelTestError:
            print("\n".join(machine.console.decode(errors="replace").splitlines()[-CONSOLE_LINES:]), file=sys.stderr)
            raise
        finally:
            machine.stop()
            keep_images(directory / IMAGES, images)


def pack(checkout: Path, archive: Path) -> None:
    """The sources, and what Python makes of them: the enforcer's own user could not write that there, and would compile
    them at every start."""
    with tempfile.TemporaryDirectory(prefix="test-kernels-") as scratch:
        tree = shutil.copytree(
            checkout, Path(scratch) / "tree", symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCES)
        )
        run(
            sys.executable, "-m", "compileall", "-q", "-f", "-s", str(tree), "-p", str(CHECKOUT), str(tree / "enforcer")
        )
        run("tar", "-C", str(tree), "-cf", str(archive), ".")


def keep_images(made: Path, images: Path) -> None:
    """The next machine gets what this one compiled, or had been given and still used."""
    if made.exists():
        shutil.rmtree(images)
        shutil.copytree(made, images)


def emulator(image: Path, directory: Path, options: argparse.Namespace) -> list[str]:
    command = [str(CHECKOUT / ".venv/bin/vng"), "--run", str(image), "--disable-kvm", "--force-9p", "--user", "root"]
    command += ["--verbose"]  # otherwise the console is lost
    command += ["--cpus", str(options.cpus), "--memory", MEMORY]
    command += ["--rwdir", str(directory)]
    # The machine's files once more, which it mounts with a cache: reading Python's and the headers is twice as fast so.
    command += [
        f"--qemu-opts=-cpu {PROCESSOR} -fsdev local,id=again,path=/,security_model=none,readonly=on,multidevs=remap"
        " -device virtio-9p-pci,fsdev=again,mount_tag=again"
    ]
    command += ["--append", f"{KERNEL_OPTIONS} {options.append}".strip()]
    return [*command, "--", shlex.join(["bash", f"{directory}/guest", str(directory), str(CHECKOUT)])]


class Machine:
    """A running emulator. `directory` is shared with the emulated machine: its output and status come through it."""

    def __init__(self, command: list[str], directory: Path) -> None:
        self.console = b""
        self._directory = directory
        self._began = time.monotonic()
        self._output = (directory / "output").open("rb")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            # A pipe: the emulator opens its output by name once more, which would empty a file.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=CHECKOUT,
            env={**os.environ, "PATH": search_path()},
        )
        self._reader = threading.Thread(target=self._read_console)
        self._reader.start()

    def watch(self, limit: float, boot_limit: float = BOOT_LIMIT) -> None:
        """Prints what is run there until the machine ends. Raises KernelTestError when it takes too long."""
        booted: float | None = None
        while self._process.poll() is None:
            elapsed = time.monotonic() - self._began
            if booted is None and (self._directory / "booted").exists():
                booted = elapsed
                print(f"test-kernels: booted after {booted:.0f} s", flush=True)
            if booted is None and elapsed > boot_limit:
                raise KernelTestError(f"the machine did not boot in {boot_limit:.0f} s; its last lines are above")
            if elapsed > limit:
                raise KernelTestError(f"not done after {limit:.0f} s; --timeout gives it longer")
            self._print_output()
            time.sleep(0.3)
        self._print_output()
        print(f"test-kernels: ended after {time.monotonic() - self._began:.0f} s", flush=True)

    def status(self) -> int:
        try:
            return int((self._directory / "status").read_text())
        except (OSError, ValueError) as error:
            raise KernelTestError("the machine ended without telling a status; its last lines are above") from error

    def stop(self) -> None:
        """Ends the emulator with all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._output.close()

    def _read_console(self) -> None:
        if self._process.stdout is not None:
            while part := os.read(self._process.stdout.fileno(), CONSOLE_BYTES):
                self.console = (self.console + part)[-CONSOLE_BYTES:]

    def _print_output(self) -> None:
        sys.stdout.buffer.write(self._output.read())
        sys.stdout.buffer.flush()


def search_path() -> str:
    return f"{CHECKOUT / '.venv/bin'}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def run(*command: str, env: dict[str, str] | None = None, cwd: str | None = None) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=cwd)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise KernelTestError(f"{' '.join(command[:3])} failed: {last}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
