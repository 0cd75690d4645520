"""Other seeds for all tests that train: `QCJAX_TEST_SEED=7 pytest` adds 7 to each."""

import os


def seed(n: int = 0) -> int:
    """`n`, moved by the environment."""
    return n + int(os.environ.get("QCJAX_TEST_SEED", "0"))
