"""What the documents say of the code: names, options and paths that must exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from clips import clip_of, core, pictures
from places import ROOT

from vs_cvrs.cli.app import app

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FOLDERS = ("csrc", "docs", "scripts", "tests", "vs_cvrs")


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)", text))


@cache
def options_of(command: str) -> set[str]:
    """The options of "vs-cvrs COMMAND ...", or of a command of that command's own."""
    found: Any = typer.main.get_command(app)
    for word in command.split()[1:3]:
        found = getattr(found, "commands", {}).get(word, found)
    return {name for option in found.params for name in option.opts} | {"--help"}


@cache
def source_of(script: str) -> str:
    """A script, and what the evaluation scripts share."""
    shared = (ROOT / "vs_cvrs" / "evaluation").glob("*.py")
    return "".join(path.read_text() for path in [ROOT / script, *shared])


def commands(page: Path, pattern: str) -> list[str]:
    """The commands of a page that match, with their continued lines."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    return re.findall(rf"(?:^ +|`|\| )({pattern}[^`|\n#]*)", text, re.MULTILINE)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize("name", ["Downsample", "Upsample"])
def test_signatures(name: str) -> None:
    text = (DOCS / "scripts.md").read_text()
    stated = re.search(rf"core\.cvrs\.{name}\((clip, float[^)]*)\)", text)
    assert stated
    names = [word.split()[-1] for word in stated[1].split(",")]
    signature = getattr(core.cvrs, name).signature
    assert names == [part.split(":")[0] for part in signature.split(";") if part]
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    described = {word for row in rows for word in re.findall(r"`(\w+)`", row)}
    assert set(names) <= described


def test_frame_properties(nearest_model: Path) -> None:
    text = (DOCS / "scripts.md").read_text()
    described = set(re.findall(r"`(CVRS\w+)`", text))
    low = core.cvrs.Downsample(
        clip_of(pictures(8, 64, 48)), factor_num=2, model=str(nearest_model), check=1
    )
    high = core.cvrs.Upsample(low, model=str(nearest_model))
    found = {*low.get_frame(0).props, *high.get_frame(0).props}
    assert {name for name in found if name.startswith("CVRS")} <= described


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_commands(page: Path) -> None:
    for command in commands(page, r"vs-cvrs [a-z]+ "):
        assert options_in(command) <= options_of(command), command
    for command in commands(page, r"scripts/\w+\.py"):
        source = source_of(command.split()[0])
        for option in options_in(command):
            name = option[2:].replace("-", "_")
            assert f'"{option}"' in source or f"{name}:" in source, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths(page: Path) -> None:
    for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", page.read_text()):
        built = path.startswith("docs/_build")
        assert built or "NAME" in path or (ROOT / path).exists(), path
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"`(test_\w+\.py)`", page.read_text())) <= tests
