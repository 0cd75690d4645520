"""A monitor that judges by rules, and four masks for it."""

from pathlib import Path

import pytest

from tests.fake_monitor import FakeMonitor, save_four


@pytest.fixture
def monitor(tmp_path: Path) -> FakeMonitor:
    return FakeMonitor(tmp_path / "monitor")


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return save_four(tmp_path / "masks")
