#!/usr/bin/env python3
"""Draw the documentation's Mermaid diagrams that were changed, and remove drawings of none.

    python scripts/diagrams.py

needs Node.js, Chromium and a network: npx fetches mermaid-cli. Only who changes a diagram runs it;
the drawings are kept in docs/images/diagrams/, and scripts/docs.sh takes them from there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
sys.path.insert(0, str(DOCS / "_extensions"))

import drawn_mermaid  # noqa: E402

MERMAID = "@mermaid-js/mermaid-cli@11.17.0"
CONFIG = {"themeVariables": {"fontFamily": "sans-serif"}, "flowchart": {"htmlLabels": False}}


def draw(source: str, theme: str, target: Path, chromium: str) -> None:
    """Draw a diagram for one of the site's themes. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page, config, browser = (
            folder / part for part in ("in.mmd", "config.json", "browser.json")
        )
        page.write_text(source)
        config.write_text(json.dumps({"theme": drawn_mermaid.THEMES[theme], **CONFIG}))
        browser.write_text(json.dumps({"executablePath": chromium, "args": ["--no-sandbox"]}))
        command = ["npx", "--yes", MERMAID, "-q", "-b", "transparent"]
        command += ["-i", str(page), "-o", str(target), "-c", str(config), "-p", str(browser)]
        subprocess.run(command, check=True, env=os.environ | {"PUPPETEER_SKIP_DOWNLOAD": "1"})


def main() -> int:
    """Draw what is missing, remove what is left over; the exit code."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not (chromium and shutil.which("npx")):
        print("diagrams: needs chromium and npx (Node.js) on PATH", file=sys.stderr)
        return 1
    (DOCS / drawn_mermaid.FOLDER).mkdir(parents=True, exist_ok=True)
    wanted = set()
    for page in sorted(DOCS.glob("*.md")):
        for source in drawn_mermaid.blocks(page.read_text()):
            for theme in drawn_mermaid.THEMES:
                target = DOCS / drawn_mermaid.drawing(source, theme)
                wanted.add(target)
                if not target.is_file():
                    draw(source, theme, target, chromium)
                    print(target.relative_to(DOCS))
    for target in set((DOCS / drawn_mermaid.FOLDER).glob("*.svg")) - wanted:
        target.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
