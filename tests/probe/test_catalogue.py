"""The catalogue is whole, and the documentation shows it as it is."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from enforcer.errors import UsageError
from enforcer.probe import host_stages, launch
from enforcer.probe.catalogue import CATALOGUE, GROUPS, as_markdown, select
from enforcer.probe.inside.kit import Technique
from enforcer.probe.stages import STAGES

INSIDE = Path(launch.__file__).parent / "inside"
PAGE = Path(__file__).parents[2] / "docs/containment.md"


def test_there_are_many_ways_out() -> None:
    """At least sixty techniques, and none in a group that the catalogue does not tell."""
    assert len(CATALOGUE) >= 60
    assert {one.group for one in CATALOGUE} == set(GROUPS)


@pytest.mark.parametrize("technique", CATALOGUE, ids=lambda one: one.name)
def test_a_technique_says_what_it_does(technique: Technique) -> None:
    """One line on what is tried, one on what stops it, a stage that exists, users that are known."""
    assert technique.tries.endswith(".")
    assert len(technique.tries) < 130
    assert technique.stopped_by
    assert technique.stage in STAGES
    assert technique.users in ("both", "root")
    assert technique.start in ("", "own")


def test_every_stage_is_used() -> None:
    """A stage that no technique plays on is forgotten code."""
    assert host_stages.STAGES is STAGES
    assert {one.stage for one in CATALOGUE} == set(STAGES)


def test_every_module_is_sent() -> None:
    """A file of techniques that is not listed would never be tried."""
    assert {path.stem for path in INSIDE.glob("*.py")} - {"__init__", "agent"} == set(launch.MODULES)


@pytest.mark.parametrize("path", sorted(INSIDE.glob("*.py")), ids=lambda path: path.stem)
def test_what_runs_inside_needs_nothing_of_ours(path: Path) -> None:
    """Only the standard library and the kit: no file of the enforcer must be readable in an executor."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.module == "enforcer.probe.inside.kit" or node.module.split(".")[0] in sys.stdlib_module_names


def test_selection_is_by_name_and_by_group() -> None:
    """Globs choose; one that chooses nothing is an error rather than a run without a finding."""
    assert [one.name for one in select(("tcp4",))] == ["tcp4"]
    assert {one.group for one in select(("UDP",))} == {"UDP"}
    assert select(()) == CATALOGUE
    with pytest.raises(UsageError, match="no technique matches nothing-like-it"):
        select(("nothing-like-it",))


def test_the_page_shows_the_catalogue() -> None:
    """The table of docs/containment.md is `catalogue.as_markdown()`; `tools/containment_table.py` writes it."""
    assert as_markdown() in PAGE.read_text()


def test_a_technique_that_runs_alone_gets_all_that_it_needs() -> None:
    """Its module and the kit, which is all that any of them imports of ours."""
    for one in CATALOGUE:
        texts = launch.sources(one.name)
        assert list(texts) == ["enforcer.probe.inside.kit", one.run.__module__]
        imported = re.findall(r"^(?:from|import) (enforcer\.\S+)", texts[one.run.__module__], re.MULTILINE)
        assert set(imported) <= {"enforcer.probe.inside.kit"}
