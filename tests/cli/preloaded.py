"""What a test wants of a worker process; Dask loads this file into it (distributed.worker.preload).

CVRS_TEST_VERSION: the version of the plugin that it says it has.
CVRS_TEST_HANG: a file; the process that makes it hangs in its next segment, for ever.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from vs_cvrs.cli.cluster import worker

if version := os.environ.get("CVRS_TEST_VERSION"):
    worker.__dict__["__version__"] = version

hang = os.environ.get("CVRS_TEST_HANG", "")
if hang and worker.__dict__["make_segments"].__module__ != __name__:  # Dask may load this twice
    make_segments = worker.__dict__["make_segments"]

    def hanging(*arguments: Any) -> Any:
        try:
            os.close(os.open(hang, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return make_segments(*arguments)
        return threading.Event().wait()

    worker.__dict__["make_segments"] = hanging
