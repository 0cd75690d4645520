"""Tests that take too long for every change: `QCJAX_SLOW_TESTS=1 pytest` runs them too."""

import os

import pytest

slow = pytest.mark.skipif(
    not os.environ.get("QCJAX_SLOW_TESTS"), reason="takes long; QCJAX_SLOW_TESTS=1 runs it"
)
