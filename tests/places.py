"""Where the project is, and footage and recorded tensors that are not part of it.

CVRS_DATA holds train, stills and val; CVRS_GOLDEN the recorded cases. Tests that need them are
skipped where they are absent.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BESIDE = ROOT.parent / "shared"

DATA = Path(os.environ.get("CVRS_DATA", _BESIDE / "data"))
GOLDEN = Path(os.environ.get("CVRS_GOLDEN", _BESIDE / "golden"))
VIMEO = DATA / "val" / "vimeo"
