"""The policies that docs/policies.md shows: they are valid, and answer as their examples say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from enforcer.policy.expectations import run_expectations
from enforcer.policy.loader import read_policy

from .policy_world import VOCABULARY, lookup, write_policy

PAGE = (Path(__file__).parents[2] / "docs/policies.md").read_text(encoding="utf-8")
EXAMPLES = {
    match[1]: match[0] for match in re.finditer(r"(?<=```yaml\n)policy: ([a-z-]+)\n.*?(?=```)", PAGE, re.DOTALL)
}


def test_every_kind_of_example_is_there() -> None:
    """The page shows a pack, requests, proxies, tls, direct and attached traffic, the host's own services,
    and pseudonyms."""
    shown = {
        "eu-only",
        "orders-api",
        "orders-database",
        "agent-tools",
        "by-proxy",
        "tls",
        "mirrors",
        "agents",
        "local-database",
        "translation-abroad",
    }
    assert shown == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_documentation_holds(tmp_path: Path, name: str) -> None:
    """Whoever copies it gets a policy without a fault that does what the page says."""
    source = read_policy(write_policy(tmp_path, EXAMPLES[name], name), VOCABULARY)
    assert source.file.expect
    assert run_expectations(source, lookup) == []
