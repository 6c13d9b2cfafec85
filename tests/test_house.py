"""The house is in order: what no single module can keep by itself. Import rules and missing migrations are parts of
scripts/check, which names them better than a failed test would."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
READER = re.compile(r"env_[a-z]+")


def settings_read() -> set[str]:
    """The variables that config/settings.py reads through config/env.py."""
    tree = ast.parse((ROOT / "config" / "settings.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    names = [call.args[0] for call in calls if call.args and READER.fullmatch(getattr(call.func, "id", ""))]
    return {name.value for name in names if isinstance(name, ast.Constant) and isinstance(name.value, str)}


def settings_documented() -> list[str]:
    """The variables that docs/settings.md describes: the first cell of each row, in order."""
    return re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "docs" / "settings.md").read_text(), flags=re.MULTILINE)


def test_every_setting_is_documented_once_and_no_other() -> None:
    documented = settings_documented()

    assert sorted(documented) == sorted(settings_read())


def test_no_setting_is_read_around_the_readers() -> None:
    modules = [*ROOT.glob("config/*.py"), *ROOT.glob("orders/**/*.py"), *ROOT.glob("sagas/**/*.py")]
    reading = {
        str(path.relative_to(ROOT))
        for path in modules
        if re.search(r"os\.environ\b(?!\.setdefault)|os\.getenv", path.read_text())
    }

    # The demo and the workers' supervisor hand the environment on to the processes they start.
    children = {"orders/children.py", "orders/management/commands/demo.py", "sagas/management/commands/sagaworker.py"}
    assert reading - children == {"config/env.py"}


@pytest.mark.parametrize("name", ["run", "traces", "test"])
def test_every_requirement_is_pinned_with_hashes_and_without_an_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    blocks = re.findall(r"^[a-z0-9].*?(?=^[a-z0-9]|\Z)", text, flags=re.MULTILINE | re.DOTALL)

    assert [block for block in blocks if "==" not in block or "--hash=sha256:" not in block] == []
    assert re.findall(r"https?:|file:|--(?:extra-)?index-url|--find-links", text) == []


def test_test_requirements_contain_the_running_ones_at_the_same_version() -> None:
    pins = {
        name: set(re.findall(r"^[^\s;]+==[^\s;]+", (ROOT / "requirements" / f"{name}.txt").read_text(), re.MULTILINE))
        for name in ("run", "traces", "test")
    }

    assert (pins["run"] | pins["traces"]) - pins["test"] == set()


def test_pip_can_install_it_with_what_it_needs() -> None:
    """`pip install -e .`: the packages are named, since pip refuses to choose among so many folders."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    imported = told["tool"]["importlinter"]["root_packages"]

    assert told["build-system"]["build-backend"] == "setuptools.build_meta"
    assert told["tool"]["setuptools"]["packages"]["find"]["include"] == [f"{name}*" for name in sorted(imported)]
    assert told["project"]["dynamic"] == ["dependencies", "optional-dependencies"]
    assert told["tool"]["setuptools"]["dynamic"] == {
        "dependencies": {"file": ["requirements/run.in"]},
        "optional-dependencies": {"traces": {"file": ["requirements/traces.in"]}},
    }


def test_each_version_says_what_whoever_upgrades_has_to_do() -> None:
    versions = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]

    assert versions
    for version in versions:
        assert re.search(r"^### Upgrading\n\n\S", version, re.MULTILINE), version.splitlines()[0]
