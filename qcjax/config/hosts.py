"""Where the processes of a run find each other."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hosts:
    """Where the processes of a run find each other (`--distributed`)."""

    coordinator: str | None = None
    """HOST:PORT of the first process; None: as the cluster says."""
    count: int | None = None
    """How many processes; None: as the cluster says."""
    index: int | None = None
    """Which of them this one is, from 0; None: as the cluster says."""
