"""The command line: ``vs-cvrs`` or ``python -m vs_cvrs``. Each module is a part of it."""

from vs_cvrs.cli.app import main

__all__ = ["main"]
