"""What the far side has to offer: a repository, a wheel, a tarball, a Debian package, each made here in true form."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

from tests.fixtures.world import CARD, EMAIL

# What every one of them says when it is used.
SAYS = "demo parcel has arrived"
VERSION = "1.0.0"
WHEEL = f"demo_parcel-{VERSION}-py3-none-any.whl"


def make(tree: Path, host: str) -> None:
    """All of it below `tree`, which is served as the root of `host`."""
    tree.mkdir(parents=True)
    _wheel(tree / "simple/demo-parcel")
    _tarball(tree / "npm", host)
    _debian(tree / "apt")
    _repository(tree / "git")


def _wheel(directory: Path) -> None:
    """A page of the simple index (PEP 503) and a wheel (PEP 427)."""
    directory.mkdir(parents=True)
    info = f"demo_parcel-{VERSION}.dist-info"
    files = {
        "demo_parcel.py": f"print({SAYS!r})\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: demo-parcel\nVersion: {VERSION}\nAuthor-email: {EMAIL}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},{_record_hash(text.encode())},{len(text)}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(directory / WHEEL, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    digest = hashlib.sha256((directory / WHEEL).read_bytes()).hexdigest()
    page = (
        f'<!DOCTYPE html><html><body>\n<a href="{WHEEL}#sha256={digest}">{WHEEL}</a><!-- by {EMAIL} -->\n</body></html>'
    )
    (directory / "index.html").write_text(page)


def _record_hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _tarball(directory: Path, host: str) -> None:
    """A registry's document of a package, and the package."""
    (directory / "demo-parcel/-").mkdir(parents=True)
    package = {"name": "demo-parcel", "version": VERSION, "main": "index.js"}
    files = {"package/package.json": json.dumps(package), "package/index.js": f"console.log({SAYS!r})\n"}
    packed = _tar(files)
    (directory / f"demo-parcel/-/demo-parcel-{VERSION}.tgz").write_bytes(packed)
    dist = {
        "tarball": f"https://{host}/npm/demo-parcel/-/demo-parcel-{VERSION}.tgz",
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode(),
    }
    document = {
        "name": "demo-parcel",
        "dist-tags": {"latest": VERSION},
        "versions": {VERSION: package | {"dist": dist}},
        "maintainers": [{"name": "ada", "email": EMAIL}],
    }
    (directory / "demo-parcel/index.json").write_text(json.dumps(document))


def _tar(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return stream.getvalue()


def _debian(directory: Path) -> None:
    """A flat repository, as `deb URL ./` in a sources list."""
    control = directory / "build/DEBIAN/control"
    control.parent.mkdir(parents=True)
    fields = f"Package: demo-parcel\nVersion: {VERSION}\nArchitecture: all\nMaintainer: Ada <{EMAIL}>\n"
    control.write_text(f"{fields}Description: {SAYS}\n")
    deb = directory / f"demo-parcel_{VERSION}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(directory / "build"), str(deb)],
        check=True,
        capture_output=True,
    )
    data = deb.read_bytes()
    packages = f"{fields}Filename: ./{deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    packages += f"Description: {SAYS}\n\n"
    index = {"Packages": packages.encode(), "Packages.gz": gzip.compress(packages.encode())}
    lines = [f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}" for name, content in index.items()]
    for name, content in index.items():
        (directory / name).write_bytes(content)
    dated = "Date: Sat, 01 Jan 2022 00:00:00 UTC"
    (directory / "Release").write_text("\n".join([dated, "Suite: stable", "SHA256:", *lines, ""]))


def _repository(directory: Path) -> None:
    """A bare repository with one commit, to which everyone may push."""
    bare = directory / "demo.git"
    work = directory / "work"
    work.mkdir(parents=True)
    (work / "README").write_text(f"{SAYS}\ncard {CARD} of {EMAIL}\n")
    identity = ["-c", "user.name=Ada", "-c", f"user.email={EMAIL}"]
    for arguments in (
        ["init", "-q", "-b", "main", str(work)],
        ["-C", str(work), "add", "README"],
        ["-C", str(work), *identity, "commit", "-q", "-m", "first"],
        ["clone", "-q", "--bare", str(work), str(bare)],
        ["-C", str(bare), "config", "http.receivepack", "true"],
    ):
        subprocess.run(["git", *arguments], check=True, capture_output=True)
