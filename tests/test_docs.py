"""The documentation covers what there is, links to what exists, and names no command that does not."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from enforcer import errors
from enforcer.capture import abi
from enforcer.capture.programs import HOOKS, MAPS
from enforcer.cli import cli
from enforcer.config import Settings, load_settings
from enforcer.geo.groups import Groups
from enforcer.geo.special import SPECIAL
from enforcer.masking import detectors
from enforcer.policy.schema import MODELS
from enforcer.protocols import registry
from enforcer.supervisor.service import Supervisor
from enforcer.verdict import Reason

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "bpf/README.md",
        ROOT / "vagrant/README.md",
        *(ROOT / "docs").glob("*.md"),
    )
)
# [text](target), not an image, not inside code.
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose(text: str) -> str:
    return CODE.sub("", FENCE.sub("", text))


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def sections(text: str) -> dict[str, str]:
    """Text below each heading, by the heading's words."""
    parts = re.split(r"^#+ (.+)$", FENCE.sub(lambda block: block[0].replace("#", " "), text), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def anchor(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")


def test_cli_reference_is_current() -> None:
    """docs/cli.md is what its generator makes of the commands."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/cli_reference.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [path for path, _ in commands(cli)], ids=" ".join)
def test_every_command_and_option_is_in_the_reference(path: tuple[str, ...]) -> None:
    """Each command has a section that names all of its options."""
    command = dict(commands(cli))[path]
    section = sections(read("docs/cli.md"))[f"enforcer {' '.join(path)}"]
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("-")]
    assert [option for option in options if option not in section] == []


def test_every_setting_is_documented_with_its_default() -> None:
    """Each field of Settings has a row, and the row names the default in YAML's spelling. Those that are mappings of
    their own have no default, and a page that names every key."""
    table = sections(read("docs/operating.md"))["Configuration"]
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`|none) \|", table, re.MULTILINE)}
    written = {"[]": (), "{}": {}, "enforcer": "enforcer"}
    expected = {name: field for name, field in Settings.model_fields.items() if name != "root"}
    assert rows.keys() == expected.keys()
    for name, text in rows.items():
        default = getattr(Settings(), name)
        if isinstance(default, BaseModel):
            page = next(page for page in ("operating", "names", "geography") if f"\n{name}:" in read(f"docs/{page}.md"))
            unnamed = [
                key
                for key in type(default).model_fields
                if not re.search(rf"`{key}`|\b{key}:", read(f"docs/{page}.md"))
            ]
            assert (text, unnamed) == ("", []), name
            continue
        if isinstance(default, tuple) and default:
            assert text == f"[{', '.join(map(str, default))}]"
        else:
            assert written.get(text, text) in (default, str(default)), name


@pytest.mark.parametrize("parent", [name for name in MODELS if name != "to"])
def test_every_policy_field_is_documented(parent: str) -> None:
    """Each key a policy file may hold is in docs/policies.md, in the section of what holds it."""
    heading = {"": "The file", "applies_to": "The file", "rules": "Rules", "mask": "Masking", "expect": "Expectations"}
    heading |= {"only": "Only", "graphql": "Only", "pseudonyms": "Masking"}
    section = sections(read("docs/policies.md"))[heading[parent]]
    assert [key for key in keys(MODELS[parent]) if key not in " ".join(CODE.findall(section)).split()] == []


def test_every_condition_is_documented() -> None:
    """Each key below `to` has a row of its own."""
    section = sections(read("docs/policies.md"))["Rules"]
    assert [key for key in keys(MODELS["to"]) if f"| `{key}` |" not in section] == []


def keys(model: type[BaseModel]) -> list[str]:
    # A mask's `response` is written with a colon there, as in the file.
    names = [field.alias or name for name, field in model.model_fields.items()]
    return [f"{{{name}:" if name == "response" else name for name in names]


def test_every_word_of_a_policy_is_documented() -> None:
    """Protocols, reasons and packs are all in docs/policies.md, detectors there or in docs/masking.md."""
    text = read("docs/policies.md") + read("docs/masking.md")
    packs = [path.stem for path in (ROOT / "policies").glob("*.yaml")]
    words = [*detectors.NAMES, *registry.NAMES, *packs, *(reason.value for reason in Reason)]
    flat = " ".join(text.split())
    assert [word for word in words if f"`{word}`" not in flat] == []


def test_every_kind_and_group_is_documented() -> None:
    """The kinds of special-purpose ranges and the shipped groups are in docs/geography.md."""
    text = read("docs/geography.md")
    words = {*(row.kind for row in SPECIAL), *Groups.load().names, "country", "operator", "unknown"}
    assert [word for word in sorted(words) if f"| `{word}` |" not in text] == []


def test_every_counter_is_documented() -> None:
    """Each counter of bpf/abi.h has a row in docs/operating.md."""
    section = sections(read("docs/operating.md"))["Counters"]
    documented = re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)
    assert documented == list(abi.enum_names("counter"))


def test_every_field_of_status_is_documented() -> None:
    """Each key that `enforcer status --json` prints is in the table of its lines."""
    method = ast.parse(textwrap.dedent(inspect.getsource(Supervisor._status)))
    answer = next(node.value for node in ast.walk(method) if isinstance(node, ast.Return))
    assert isinstance(answer, ast.Dict)
    fields = [key.value for key in answer.keys if isinstance(key, ast.Constant)]
    section = sections(read("docs/operating.md"))["Status"]
    assert len(fields) == len(answer.keys)
    assert [field for field in fields if f"`{field}`" not in section] == []


def test_every_map_and_program_is_documented() -> None:
    """Each map that bpf/maps.h declares, and each program that is attached, is in bpf/README.md."""
    text = read("bpf/README.md")
    # BCC's own macros name the map first, the general one after its kind, key and value.
    declaration = re.compile(r"^BPF_(?:(?:F_)?TABLE\((?:[^,]+, ){3}|\w+\()(\w+)", re.M)
    declared = declaration.findall(read("bpf/maps.h"))
    assert set(MAPS) <= set(declared), "a declaration that this test does not recognise"
    assert len(declared) == len(re.findall(r"^BPF_\w+\(", read("bpf/maps.h"), re.M))
    rows = "".join(re.findall(r"^\|([^|]*)\|", text, re.MULTILINE))
    names = [name for name in declared if not name.endswith("_shape")] + [hook.program for hook in HOOKS]
    assert [name for name in names if f"`{name}`" not in rows] == []
    assert [name for name in declared if f"`{name}`" not in text] == []


def test_every_error_class_and_exit_code_is_documented() -> None:
    """Each class of enforcer/errors.py is in docs/cli.md, with its exit code if commands end with it."""
    section = sections(read("docs/cli.md"))["Exit codes"]
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.EnforcerError)]
    for one in classes:
        if issubclass(one, errors.ProtocolError | errors.Unwritable):
            assert f"`{one.__name__}`" in section
        else:
            assert f"| {one.exit_code} | `{one.__name__}` |" in section


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_resolves(page: Path) -> None:
    """Relative links point to files that exist, and their fragments to headings that exist."""
    broken = []
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, fragment = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        found = path.exists() and path.is_relative_to(ROOT)
        if found and fragment:
            found = fragment in map(anchor, sections(path.read_text(encoding="utf-8")))
        if not found:
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    """`enforcer VERB` and `make TARGET` in code are commands and targets that exist."""
    if page.name == "CHANGELOG.md":
        return
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*FENCE.findall(text), *CODE.findall(FENCE.sub("", text))])
    verbs = {path for path, _ in commands(cli)}
    groups = {path[0] for path in verbs if len(path) == 2}
    named = re.findall(
        r"(?:^|\$ |sudo |')enforcer(?: --root \S+)? ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", code, re.MULTILINE
    )
    used = {(verb, sub) if verb in groups and sub else (verb,) for verb, sub in named}
    assert used - verbs == set()
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|sudo |&& |')make ([a-z-]+)", code, re.MULTILINE)) - targets == set()


EXAMPLES = [
    pytest.param(text, id=f"{page.stem}: {text.split()[0]} {text.split()[1]}")
    for page in PAGES
    for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_accepted(text: str, tmp_path: Path) -> None:
    """A policy that a page prints passes `enforcer policy check` with the shipped tables, its expectations too; all
    else in YAML is settings that are taken as they stand."""
    name = re.match(r"policy: (\S+)", text)
    directory = tmp_path / "etc/enforcer"
    directory.mkdir(parents=True)
    (directory / "enforcer.yaml").write_text("" if name else text, encoding="utf-8")
    assert load_settings(tmp_path).root == tmp_path
    if name:
        path = tmp_path / f"{name[1]}.yaml"
        path.write_text(text, encoding="utf-8")
        done = CliRunner().invoke(cli, ["--root", str(tmp_path), "policy", "check", str(path)])
        assert done.exception is None, done.exception


def test_readme_names_every_page() -> None:
    """Every page of the documentation can be found from the README."""
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in LINK.findall(prose(read("README.md")))}
    assert [str(page) for page in PAGES if page != ROOT / "README.md" and page not in linked] == []


def test_changelog_has_this_version() -> None:
    """The version of pyproject.toml has a section in the changelog."""
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert re.search(rf"^## \[{re.escape(version)}\]", read("CHANGELOG.md"), re.MULTILINE)


def test_shipped_data_is_attributed() -> None:
    """README and geography carry the words that the licence of the NRO data asks for, and name IPFire's."""
    for name in ("README.md", "docs/geography.md"):
        text = " ".join(read(name).split())
        assert "Copyright Holder: Number Resource Organization (NRO)" in text
        assert "CC BY-SA 4.0" in text
