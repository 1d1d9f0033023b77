"""The table and the file that the HTTP benchmarks end with: figures, ratios, and whether each target holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from benchmarks.load import Result, median


@dataclass
class Report:
    """`runs`: by section and contender. `targets`: (what, value, target, holds). `notes`: what a reader has to know."""

    runs: dict[str, dict[str, list[Result]]] = field(default_factory=dict)
    targets: list[tuple[str, float, str, bool]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def section(self, title: str, runs: dict[str, list[Result]], beside: str) -> dict[str, Result]:
        """Prints one section as ratios to the contender `beside`; returns the medians."""
        self.runs[title] = runs
        medians = {name: median(results) for name, results in runs.items()}
        print(f"\n{title:<38}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{f'of {beside}':>16}{'errors':>8}")
        for name, told in medians.items():
            ratio = told.rate / medians[beside].rate if medians[beside].rate else float("nan")
            print(f"  {name:<36}{told.rate:>11.0f}{told.p50:>9.2f}{told.p99:>9.2f}{ratio:>16.2f}{told.errors:>8}")
        return medians

    def target(self, what: str, value: float, at_least: float | None = None, at_most: float | None = None) -> None:
        holds = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        bound = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
        self.targets.append((what, value, bound, holds))

    def note(self, text: str) -> None:
        print(f"  {text}")
        self.notes.append(text)

    def end(self, file: Path | None) -> int:
        """Prints the targets and writes the file; 1 where one does not hold."""
        print()
        for what, value, bound, holds in self.targets:
            print(f"{'holds' if holds else 'FALLS SHORT':<12}{what}: {value:.2f}, target {bound}")
        if file is not None:
            runs = {
                title: {name: [asdict(run) for run in results] for name, results in section.items()}
                for title, section in self.runs.items()
            }
            targets = [dict(zip(("what", "value", "target", "holds"), one, strict=True)) for one in self.targets]
            told = {"cpus": psutil.cpu_count(), "runs": runs, "targets": targets, "notes": self.notes}
            file.write_text(json.dumps(told, indent=1))
        return 0 if all(holds for *_, holds in self.targets) else 1
