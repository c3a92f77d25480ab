"""What `make dist` builds: it says nothing of mistakes, and is a ginit once it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys

from engine import ROOT
from machine import require

#: What belongs to a checkout and not to the project.
IGNORED = shutil.ignore_patterns(".git", ".venv*", ".tox", ".*_cache", ".hypothesis", "build", "dist", "data", "*.egg-info")


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_wheel_and_an_archive_are_built_without_a_warning_and_the_wheel_is_a_ginit(tmp_path):
    require("make")
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=IGNORED)
    said = run("make", "dist", f"PYTHON={sys.executable}", cwd=checkout)
    assert "!!" not in said  # setuptools' frame around each of its own
    assert "Deprecat" not in said
    (archive,) = (checkout / "dist").glob("*.tar.gz")
    (wheel,) = (checkout / "dist").glob("*.whl")
    assert archive.name.startswith("ginit_container-")
    assert wheel.name.startswith("ginit_container-")

    run(sys.executable, "-m", "venv", "installed", cwd=tmp_path)
    run("installed/bin/pip", "install", "--quiet", str(wheel), cwd=tmp_path)
    assert run("installed/bin/ginit", "--version", cwd=tmp_path).startswith("ginit ")
    assert run("installed/bin/python", "-m", "ginit", "--version", cwd=tmp_path).startswith("ginit ")
