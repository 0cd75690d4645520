"""How a run ends: well, with a message that says what was wrong, or stopped where the next start goes on."""

import sys
from collections.abc import Callable

from qcjax.runtime.stops import Stopped, stoppable

EXPECTED = (ValueError, TypeError, OSError, FloatingPointError, ImportError)
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "std::bad_alloc")


def exit_code(run: Callable[[], object], expected: tuple[type[Exception], ...] = EXPECTED) -> int:
    """Run to the end (0), to an error that is told in a line (1), or to a stop (75 to be started again, 130)."""
    try:
        with stoppable():
            run()
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except expected as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"error: {memory_message(error)}", file=sys.stderr)
        return 1
    return 0


def is_out_of_memory(error: Exception) -> bool:
    """Whether host or device had not enough memory: Python's own error, or XLA's, which is told by its words."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def memory_message(error: Exception) -> str:
    """What ran out, and what to do about it."""
    first = str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
    return (
        f"out of memory ({first}); use a smaller batch or size, more --devices, or a machine with more memory. "
        "Started again on the same --out, the run goes on from its last checkpoint"
    )
