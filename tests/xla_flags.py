"""What makes XLA compile the small networks of the tests in less time."""

import mmap
from importlib.util import find_spec
from pathlib import Path

# kernels made the older way take a third of the time; one file of machine code instead of one for each thread
QUICK = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


def known_flags() -> list[str]:
    """Those of `QUICK` that the installed XLA has: one that it doesn't know would end the process."""
    spec = find_spec("jaxlib")
    library = Path(spec.origin or "").with_name("libjax_common.so") if spec else Path()
    if not library.is_file():
        return []
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return [f for f in QUICK if text.find(f.strip("-").split("=")[0].encode()) >= 0]
