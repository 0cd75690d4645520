"""What a measurement was made on: processor, accelerator, versions, date."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from benchmarks.inputs import threads
from qcjax.runtime import jax_setup

THEIR_PACKAGES = ("torch", "medpy", "batchgenerators", "scikit-image")


def describe(clones: Mapping[str, Path]) -> dict[str, Any]:
    """Machine, versions, the clones' commits, and the date."""
    versions = jax_setup.versions()
    if clones:
        versions |= {name: found for name in THEIR_PACKAGES if (found := _version(name))}
    accelerator = jax.devices()[0]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "threads": threads(),
        "memory_gib": _memory_gib(),
        "accelerator": "none" if accelerator.platform == "cpu" else accelerator.device_kind,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions,
        "clones": {name: _commit(path) for name, path in clones.items()},
    }


def in_words(machine: Mapping[str, Any]) -> str:
    """E.g. ``2 threads of AMD EPYC, 24 GiB, no GPU; jax 0.10.2, PyTorch 2.13.0; 2026-01-31``."""
    gpu = "no GPU" if machine["accelerator"] == "none" else machine["accelerator"]
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    versions = machine["versions"]
    theirs = f", PyTorch {versions['torch']}" if "torch" in versions else ""
    words = f"{machine['threads']} threads of {machine['processor']}{memory}, {gpu}; jax {versions['jax']}{theirs}"
    return f"{words}; {machine['date']}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, ValueError):
        return None


def _commit(clone: Path) -> str:
    command = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
