"""Node and onnxruntime-web: where they are, or what is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PACKAGE = "onnxruntime-web"
INSTALLED = FOLDER / "node_modules" / PACKAGE
LEAST_VERSION = 18


@dataclass(frozen=True)
class Node:
    """What there is of Node.

    Attributes:
        path: The program, or None.
        version: Of Node, such as "20.20.2".
        missing: Why graphs cannot be run in it, or None.
        ort_web: The installed version of onnxruntime-web, or None.
        ort_web_missing: Why onnxruntime-web cannot be run, or None.
    """

    path: str | None
    version: str | None
    missing: str | None
    ort_web: str | None
    ort_web_missing: str | None


def find_node(*, install: bool = True) -> Node:
    """Look for Node and onnxruntime-web.

    Args:
        install: Whether to install onnxruntime-web, as the lock file has it, where it is not yet.
    """
    path = shutil.which("node")
    if path is None:
        missing = "Node is not installed (apt-get install nodejs npm)"
        return Node(None, None, missing, None, missing)
    version = _output(path, "--version").lstrip("v")
    if int(version.partition(".")[0] or 0) < LEAST_VERSION:
        missing = f"Node {version} is too old: {LEAST_VERSION} or later is needed"
        return Node(path, version, missing, None, missing)
    problem = _problem(install=install)
    return Node(path, version, None, _installed_version(), problem)


def _problem(*, install: bool) -> str | None:
    """Why the locked version of onnxruntime-web is not there, or None."""
    lock = json.loads((FOLDER / "package-lock.json").read_text(encoding="utf-8"))
    if _installed_version() == lock["packages"][f"node_modules/{PACKAGE}"]["version"]:
        return None
    if not install:
        return f"{PACKAGE} is not installed (npm ci, in {FOLDER.name}/)"
    npm = shutil.which("npm")
    if npm is None:
        return f"npm, which installs {PACKAGE}, is not installed (apt-get install npm)"
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
    reason = errors[0].removeprefix("npm error").strip() if errors else "no reason given"
    return f"npm ci failed in {FOLDER.name}/: {reason}"


def _installed_version() -> str | None:
    try:
        text = (INSTALLED / "package.json").read_text(encoding="utf-8")
    except OSError:
        return None
    return str(json.loads(text)["version"])


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
