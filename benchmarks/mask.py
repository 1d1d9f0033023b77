"""How much of what must not travel is found, how much else is hidden, and how fast: beside Presidio's recognizers.

    make bench-mask            or   .venv/bin/python -m benchmarks.mask [--each 200] [--seed 1] [--json FILE]

Recall: of the labelled values of a corpus, how many are hidden whole. Precision: of what is hidden, how much lies on a
labelled value. Presidio's pattern recognizers get the same texts, in a virtual environment of their own
(build/presidio); what they find at any score is counted, and what they find with one of 0.5 and more. Speeds are of
one core, in millions of bytes of text per second of processor, the best of three.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.mask_corpus import NUMBERS, Document, Maker, corpus
from enforcer.compiled import find_tree, running_from
from enforcer.masking import confirm, engine
from enforcer.masking.detectors import DETECTORS, Detector
from enforcer.masking.scanner import PIECE, Scanner
from enforcer.masking.text import Window

PRESIDIO = Path("build/presidio/bin/python")
INSTALL = "python3 -m venv build/presidio && build/presidio/bin/pip install presidio-analyzer"
SURE = 0.5
CHECKED = {name for name, (_, check, _) in NUMBERS.items() if check} | {"credit_card", "iban", "bitcoin_address"}
TARGETS = {"recall of values with a check": 0.99, "recall of others": 0.97, "precision": 0.98}
SPEED, PATHOLOGICAL, FASTER = 100.0, 20.0, 100.0
# Detector -> what Presidio calls it. Others it does not have.
SAME = {
    "credit_card": "CREDIT_CARD",
    "iban": "IBAN_CODE",
    "email": "EMAIL_ADDRESS",
    "phone": "PHONE_NUMBER",
    "ip_address": "IP_ADDRESS",
    "mac_address": "MAC_ADDRESS",
    "bitcoin_address": "CRYPTO",
    "us_ssn": "US_SSN",
    "us_itin": "US_ITIN",
    "us_npi": "US_NPI",
    "us_mbi": "US_MBI",
    "us_dea": "MEDICAL_LICENSE",
    "us_bank_routing": "ABA_ROUTING_NUMBER",
    "uk_nhs": "UK_NHS",
    "uk_nino": "UK_NINO",
    "ca_sin": "CA_SIN",
    "au_tfn": "AU_TFN",
    "au_medicare": "AU_MEDICARE",
    "in_aadhaar": "IN_AADHAAR",
    "in_pan": "IN_PAN",
    "kr_rrn": "KR_RRN",
    "sg_nric": "SG_NRIC_FIN",
    "tr_kimlik": "TR_NATIONAL_ID",
    "za_id": "ZA_ID_NUMBER",
    "es_dni": "ES_NIF",
    "es_nie": "ES_NIE",
    "fi_hetu": "FI_PERSONAL_IDENTITY_CODE",
    "pl_pesel": "PL_PESEL",
    "it_fiscal_code": "IT_FISCAL_CODE",
    "it_vat": "IT_VAT_CODE",
    "se_personnummer": "SE_PERSONNUMMER",
    "de_tax": "DE_TAX_ID",
    "de_pension": "DE_SOCIAL_SECURITY",
    "de_health_insurance": "DE_HEALTH_INSURANCE",
    "de_id_card": "DE_ID_CARD",
}

Spans = list[tuple[int, int, str]]


def ours(scanner: Scanner, document: Document) -> Spans:
    """What is found in a document, in characters of its text."""
    text = document.text.encode()
    return [
        (len(text[: hit.start].decode()), len(text[: hit.end].decode()), hit.detector.name)
        for hit in scanner.hits(text)
    ]


def covered(text: str, start: int, end: int, spans: Spans, name: str) -> bool:
    """Is every letter and digit from `start` to `end` hidden? Of an address the part before `@` has to be."""
    if name == "email":
        end = text.index("@", start)
    hidden = {place for low, high, _ in spans for place in range(max(low, start), min(high, end))}
    return all(place in hidden for place in range(start, end) if text[place].isalnum())


def measured(documents: list[Document], found: list[Spans]) -> dict[str, dict[str, float]]:
    """By kind of value: values, those found, findings, and those of them that lie on a value."""
    rows: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(("values", "hidden", "findings", "right"), 0))
    for document, spans in zip(documents, found, strict=True):
        for start, end, name in document.values:
            rows[name]["values"] += 1
            rows[name]["hidden"] += covered(document.text, start, end, spans, name)
        for low, high, name in spans:
            rows[name]["findings"] += 1
            rows[name]["right"] += any(low < end and high > start for start, end, _ in document.values)
    return rows


def share(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def presidio(texts: list[str]) -> dict[str, Any] | None:
    """What Presidio finds, or None where it is not installed."""
    if not PRESIDIO.exists():
        return None
    program = str(Path(__file__).with_name("mask_presidio.py"))
    done = subprocess.run(
        [str(PRESIDIO), "-P", program], input=json.dumps({"texts": texts}), capture_output=True, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def fastest(work: Callable[[], object], size: int) -> float:
    """Millions of bytes per second of processor, the best of three."""
    times = []
    for _ in range(3):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return size / min(times) / 1e6


def mask(scanner: Scanner, data: bytes) -> None:
    """As a stream, in pieces such as sockets give."""
    window, counts = Window(scanner), Counter[str]()
    for i in range(0, len(data), PIECE):
        window.feed(data[i : i + PIECE], i + PIECE >= len(data), counts)


def plain_text(maker: Maker, size: int) -> bytes:
    """Lines of logs and records in which there is nothing to hide, and a mail address every 20 KB."""
    faker, rng, lines, length = maker.fakers["en_US"], maker.rng, [], 0
    words = [faker.sentence() for _ in range(2000)]
    next_value = 20_000
    while length < size:
        line = json.dumps(
            {
                "ts": f"2026-11-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:12:33.{rng.randrange(10**6):06}Z",
                "level": rng.choice(["info", "debug", "warning"]),
                "request_id": f"{rng.getrandbits(128):032x}",
                "path": f"/api/v1/orders/{rng.randrange(10**6)}/items",
                "status": rng.choice([200, 201, 404]),
                "took": round(rng.random() * 90, 3),
                "message": rng.choice(words) + " " + rng.choice(words),
            }
        )
        if length > next_value:
            line += " contact ada@example.org"
            next_value += 20_000
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines).encode()


REPEATED = b"\0\n \"%&'+-./04:=@AZ\\az\x80\xc3\xff"
PATHOLOGICAL_UNITS = {
    **{f"every byte {bytes((byte,))!r}": bytes((byte,)) for byte in REPEATED},
    "near misses: cards": b"4111 1111 1111 1112 ",
    "near misses: addresses": b"a@b.c ",
    "near misses: IBANs": b"DE89370400440532013001 ",
    "near misses: labels": b"BSN 111222334 ",
    "near misses: phones": b"+49 1 ",
    "near misses: IPv4": b"1.2.3.4.5 ",
    "near misses: JWT": b"eyJpZCI6MTIzNDU2Nzg5MDEyfQ.a ",
    "near misses: base64": b"SGVsbG8gV29ybGQgYWdhaW4 ",
    "labels alone": b"tel bsn ssn ",
    "escapes": b"%41a",
    "no escapes": b"%4x%",
    "references": b"&#65;",
    "references of all widths": b"&#65;&#x41;&#100;a&amp;",
    "UTF-16": b"a\0",
}


def varied(rng: random.Random, size: int) -> Iterator[tuple[str, bytes]]:
    """Texts in which nothing repeats: noise, and near misses that are each another."""
    digits = b"0123456789"
    letters = bytes(range(0x61, 0x7B)) + bytes(range(0x41, 0x49)) + digits + b"   "
    yield "random bytes", rng.randbytes(size)
    yield "random digits", bytes(rng.choices(digits, k=size))
    yield "random digits in groups", bytes(rng.choices(digits * 4 + b"    -.", k=size))
    yield "random letters and digits", bytes(rng.choices(letters, k=size))
    yield "other cards that fail", b"".join(b"4%015d " % rng.randrange(10**15) for _ in range(size // 17))
    yield "other accounts that fail", b"".join(b"DE%020d " % rng.randrange(10**20) for _ in range(size // 23))
    yield (
        "other addresses of machines",
        b"".join(b"%d.%d.%d.999 " % (i % 250, i % 199, i % 97) for i in range(size // 14)),
    )
    yield (
        "other base64",
        b"".join(base64.b64encode(b"some words %06d" % rng.randrange(10**6)) + b" " for _ in range(size // 25)),
    )


def near_misses(scanner: Scanner, rng: random.Random, detector: Detector) -> bytes:
    """A block of texts like a detector's examples, each another, in which nothing is found; empty where there are
    hardly any, for nothing is checked of such values."""
    examples = [example.replace(b"<<", b"").replace(b">>", b"") for example in detector.examples]
    made = set()
    for _ in range(2 * PIECE // min(map(len, examples))):
        value = bytearray(rng.choice(examples))
        digits = [place for place, byte in enumerate(value) if byte in b"0123456789"]
        for place in rng.sample(digits, min(len(digits), 4)):
            value[place] = rng.choice(b"0123456789")
        made.add(bytes(value).replace(b"\n", b" "))
    lines = sorted(made)
    shown = scanner.hide(b"\n".join(lines), Counter()).split(b"\n")
    misses = [line for line, seen in zip(lines, shown, strict=True) if line == seen]
    return b"\n".join(misses) if len(misses) > len(lines) // 4 else b""


def pathological(scanner: Scanner, size: int) -> Iterator[tuple[str, bytes]]:
    """`size` bytes of each unit, repeated, and of what does not repeat itself; a tenth of it of near misses of each
    detector, and all of it of those of all of them."""
    rng = random.Random(1)
    for name, unit in PATHOLOGICAL_UNITS.items():
        yield name, unit * (size // len(unit))
    yield from varied(rng, size)
    blocks = {detector.name: near_misses(scanner, rng, detector) for detector in DETECTORS}
    for name, block in blocks.items():
        if block:
            yield f"other near misses: {name}", (block + b"\n") * (size // 10 // (len(block) + 1) + 1)
    every = b"\n".join(blocks.values()) + b"\n"
    yield "other near misses: all detectors", every * (size // len(every) + 1)


def peak(scanner: Scanner, text: bytes) -> float:
    """How much more memory is resident while a text is masked, at most, in MB (proc(5), clear_refs)."""
    status = Path("/proc/self/status")

    def kilobytes(name: str) -> int:
        return int(status.read_text().partition(name + ":")[2].split()[0])

    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    mask(scanner, text)
    return max(0.0, (kilobytes("VmHWM") - before) / 1024)


def run_compiled() -> None:
    """Starts this program again with the compiled tree, which is what `enforcer run` uses, if there is one."""
    tree, checkout = find_tree(), Path.cwd()
    if tree is not None and running_from() != tree:
        path = f"{tree}{os.pathsep}{checkout}"
        command = [sys.executable, "-P", "-m", "benchmarks.mask", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})  # noqa: S606 - the same program
    if tree is None:
        print("no compiled tree of exactly this code: this is the speed of plain Python; `make setup` makes one")
    else:
        print(f"measured is the compiled tree: {confirm.__file__}")
        if Path(confirm.__file__).suffix != ".so":
            raise SystemExit("mask: what should be compiled is not; remove build/compiled and run `make setup`")


def main() -> None:
    run_compiled()
    parser = argparse.ArgumentParser(prog="mask", description=__doc__.partition("\n")[0])
    parser.add_argument("--each", type=int, default=200, help="values per detector")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--megabytes", type=int, default=10, help="of each text whose masking is timed")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    options = parser.parse_args()
    begun = time.process_time()
    scanner = Scanner(DETECTORS)
    print(
        f"{len(DETECTORS)} detectors, compiled for {engine.name()} in {time.process_time() - begun:.1f} s of processor"
    )
    report: dict[str, Any] = {"engine": engine.name()}
    documents = corpus(options.seed, options.each, options.each * len(DETECTORS))
    found = [ours(scanner, document) for document in documents]
    rows = measured(documents, found)
    other = presidio([document.text for document in documents])
    report["detectors"] = tell(rows, documents, other)
    report["presidio"] = compare(documents, found, other)
    report["speed"] = speeds(scanner, options, other)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def tell(rows: dict[str, dict[str, float]], documents: list[Document], other: dict[str, Any] | None) -> dict[str, Any]:
    """Prints recall and precision by detector."""
    theirs: Counter[str] = Counter()
    if other is not None:
        by_text: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
        for index, start, end, entity, _ in other["found"]:
            by_text[index].append((start, end, entity))
        for index, document in enumerate(documents):
            for start, end, name in document.values:
                same = [span for span in by_text[index] if span[2] == SAME.get(name)]
                theirs[name] += covered(document.text, start, end, same, name)
    print(f"\n{'detector':24} {'recall':>7} {'precision':>10} {'Presidio (any score)':>21}")
    numbers = {}
    for name in sorted(rows):
        row = rows[name]
        recall, precision = share(row["hidden"], row["values"]), share(row["right"], row["findings"])
        target = TARGETS["recall of values with a check" if name in CHECKED else "recall of others"]
        short = "" if recall >= target and precision >= TARGETS["precision"] else "  <- short"
        rival = f"{theirs[name] / row['values']:.3f}" if other is not None and name in SAME else "-"
        print(f"{name:24} {recall:7.3f} {precision:10.3f} {rival:>21}{short}")
        numbers[name] = {"recall": recall, "precision": precision, "presidio": rival}
    for title, names in (("with a check", CHECKED), ("others", rows.keys() - CHECKED)):
        recall = share(sum(rows[n]["hidden"] for n in names), sum(rows[n]["values"] for n in names))
        print(f"recall of values {title}: {recall:.4f}")
    right, findings = sum(row["right"] for row in rows.values()), sum(row["findings"] for row in rows.values())
    print(f"precision of all findings: {share(right, findings):.4f} (target {TARGETS['precision']})")
    return numbers


def compare(documents: list[Document], found: list[Spans], other: dict[str, Any] | None) -> dict[str, float]:
    """Prints precision and recall of both, over the kinds of values that Presidio has."""
    if other is None:
        print(f"\nPresidio is not compared: {PRESIDIO} is not there; {INSTALL}")
        return {}
    numbers: dict[str, float] = {}
    entities = {entity: name for name, entity in SAME.items()}

    def row(title: str, spans: list[Spans]) -> None:
        values = hidden = findings = right = 0
        for document, here in zip(documents, spans, strict=True):
            for start, end, name in document.values:
                if name in SAME:
                    values += 1
                    hidden += covered(document.text, start, end, here, name)
            for low, high, _ in here:
                findings += 1
                right += any(low < end and high > start for start, end, _ in document.values)
        numbers[f"{title} recall"], numbers[f"{title} precision"] = share(hidden, values), share(right, findings)
        print(f"{title:28} recall {share(hidden, values):.4f}   precision {share(right, findings):.4f}")

    print(f"\nthe {len(SAME)} kinds that both have, Presidio with {other['recognizers']} recognizers:")
    row("enforcer", [[span for span in spans if span[2] in SAME] for spans in found])
    for title, least in (("Presidio, any score", 0.0), (f"Presidio, {SURE} and more", SURE)):
        theirs: list[Spans] = [[] for _ in documents]
        for index, start, end, entity, score in other["found"]:
            if score >= least and entity in entities:
                theirs[index].append((start, end, entity))
        row(title, theirs)
    return numbers


def speeds(scanner: Scanner, options: argparse.Namespace, other: dict[str, Any] | None) -> dict[str, Any]:
    """Prints how fast plain texts, the corpus and pathological texts are masked."""
    maker = Maker(options.seed)
    size = options.megabytes * 1_000_000
    text = plain_text(maker, size)
    sparse = fastest(lambda: mask(scanner, text), len(text))
    dense = "\n".join(document.text for document in corpus(options.seed, 100, 0)).encode()
    print(f"\nall detectors, a hit every 20 KB: {sparse:.0f} MB/s per core (target {SPEED:.0f})")
    crowded = fastest(lambda: mask(scanner, dense), len(dense))
    print(f"all detectors, a hit every {len(dense) // (100 * len(DETECTORS))} bytes: {crowded:.1f} MB/s per core")
    numbers: dict[str, Any] = {"sparse": sparse, "dense": crowded}
    if other is not None:
        part = text[:100_000].decode(errors="ignore")
        answer = presidio([part[i : i + 1000] for i in range(0, len(part), 1000)])
        if answer is not None:
            rival = len(part) / answer["seconds"] / 1e6
            numbers["presidio"] = rival
            print(f"Presidio, the same text: {rival:.3f} MB/s; {sparse / rival:.0f} times slower (target {FASTER:.0f})")
    print(
        f"\n{options.megabytes} MB of one thing, MB/s per core (target {PATHOLOGICAL:.0f}), and MB of memory meanwhile"
    )
    measured: dict[str, tuple[float, float]] = {}
    for name, text in pathological(scanner, size):
        grown, speed = peak(scanner, text), fastest(partial(mask, scanner, text), len(text))
        measured[name] = speed, grown
        print(f"{name:40} {speed:6.1f} {grown:6.1f}{'' if speed >= PATHOLOGICAL else '  <- short'}", flush=True)
    numbers["pathological"] = {name: speed for name, (speed, _) in measured.items()}
    numbers["grown"] = max(grown for _, grown in measured.values())
    return numbers


if __name__ == "__main__":
    main()
