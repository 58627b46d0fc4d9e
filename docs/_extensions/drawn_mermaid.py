"""Mermaid diagrams in the documentation, drawn before: the build needs no network and no browser.

A page holds a diagram's source as a ```mermaid block, which GitHub and editors draw by themselves.
In the site, docs/images/diagrams/HASH-light.svg and HASH-dark.svg take its place; HASH is of the
source, so that a diagram that was changed and not drawn again ends the build. scripts/diagrams.py
draws what is missing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path("images", "diagrams")
"""Of drawings, below docs/."""

THEMES = {"light": "neutral", "dark": "dark"}
"""Mermaid's theme for each of the site's."""

_BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> Iterator[str]:
    """The sources of a Markdown page's diagrams."""
    for found in _BLOCK.finditer(page):
        yield found[1].strip()


def drawing(source: str, theme: str) -> Path:
    """Where the drawing of a diagram lies, below docs/."""
    name = hashlib.sha256(source.strip().encode()).hexdigest()[:12]
    return FOLDER / f"{name}-{theme}.svg"


def setup(app: Any) -> dict[str, bool]:
    """Add the directive. Called by Sphinx."""
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    class Mermaid(SphinxDirective):
        has_content = True

        def run(self) -> list[nodes.Node]:
            source = "\n".join(self.content)
            images: list[nodes.Node] = []
            for theme in THEMES:
                path = drawing(source, theme)
                if not (Path(self.env.srcdir) / path).is_file():
                    raise self.error("a diagram is not drawn yet: run scripts/diagrams.py")
                image = nodes.image(uri=f"/{path.as_posix()}", alt="diagram", loading="lazy")
                image["classes"] = [f"only-{theme}", "diagram"]
                images.append(image)
            return images

    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
