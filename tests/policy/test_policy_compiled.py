"""The compiled form as text: what a worker accepts from the supervisor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enforcer.errors import PolicyError
from enforcer.policy.compiled import PolicySet

from .policy_world import load


def test_a_changed_set_is_refused(tmp_path: Path) -> None:
    """A rule that changed on its way no longer fits the generation."""
    text = load(tmp_path, "name: a, to: {region: [DE]}, action: deny").to_json()
    with pytest.raises(PolicyError, match="damaged"):
        PolicySet.from_json(text.replace('"deny"', '"allow"'))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"policies": [1], "generation": ""}', "[" * 100_000])
def test_a_damaged_set_is_refused(text: str) -> None:
    """Anything but a whole policy set is one clear error."""
    with pytest.raises(PolicyError, match="damaged"):
        PolicySet.from_json(text)


def test_the_text_is_plain_json(tmp_path: Path) -> None:
    """The text holds the generation beside the policies."""
    policies = load(tmp_path, "name: a, to: {region: [DE]}, action: deny")
    assert json.loads(policies.to_json())["generation"] == policies.generation
