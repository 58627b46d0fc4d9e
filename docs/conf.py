"""The documentation's settings, for Sphinx. scripts/docs.sh builds it."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "vs-cvrs"
author = "the vs-cvrs authors"
release = version = version_of("vs-cvrs")
html_title = "vs-cvrs"

extensions = [
    "drawn_mermaid",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "py:obj"
# Of Python names, our public ones must lead somewhere; those of libraries are not linked.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!vs_cvrs\.).*|.*\._.*")]

myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
# Indented blocks are commands.
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
napoleon_custom_sections = [("Class attributes", "params_style")]
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
html_copy_source = False


def _point_to_pages(_: Sphinx, path: Path, page: str, text: list[str]) -> None:
    """Let files of the repository that pages include link to each other's pages."""
    for name in ("CHANGELOG", "CONTRIBUTING"):
        text[0] = text[0].replace(f"({name}.md)", f"(docs/{name.lower()}.md)")
    text[0] = text[0].replace("[LICENSE](LICENSE)", "LICENSE")


def _name_each(_: Sphinx, *about: object) -> None:
    """Give "width, height: ..." in a docstring a line for each name, as napoleon wants it."""
    lines = about[-1]
    assert isinstance(lines, list)
    for i in reversed(range(len(lines))):
        if together := re.fullmatch(r"( +)(\w+(?:, \w+)+): (.*)", lines[i]):
            space, names, text = together.groups()
            lines[i : i + 1] = [f"{space}{name}: {text}" for name in names.split(", ")]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _name_each, priority=400)  # before napoleon
    app.connect("include-read", _point_to_pages)
