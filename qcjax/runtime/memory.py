"""What a process holds on the host; loads nothing heavy, so that what it measures isn't its own."""

import resource
import sys
from contextlib import suppress


def host_peak_bytes() -> int:
    """The most memory that this process has held on the host so far.

    From /proc where there is one: `ru_maxrss` survives exec, so a child shows what its parent once had.
    """
    with suppress(OSError, StopIteration), open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
