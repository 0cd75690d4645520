"""A run on disk while its experiment makes it: its folder, its data set, what is done already, its results."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from qcjax.config import AcdcConfig, EmidecConfig, Mnms2Config
from qcjax.data.findings import Finding
from qcjax.data.subject import Subject
from qcjax.data.validate import usable
from qcjax.runtime import hosts, jax_setup
from qcjax.runtime.devices import Devices
from qcjax.runtime.files import without_nan, write_whole
from qcjax.runtime.folder import open_folder
from qcjax.runtime.progress import bar, say
from qcjax.runtime.records import kept_record, read_record, write_record
from qcjax.train.journal import Journal

C = TypeVar("C", Mnms2Config, AcdcConfig, EmidecConfig)
T = TypeVar("T")


class ExperimentRun(ABC, Generic[C]):
    """One folder of results; an experiment adds its own steps, and says where its data come from."""

    def __init__(self, config: C, folder: Path) -> None:
        """Make the folder, or go on with what is in it.

        Raises what `check_options` does, and nothing is made then; ValueError for a folder that another configuration
        has used (says what differs).
        """
        self.config: C = config
        self.folder = folder
        self.devices = Devices(config.devices)
        self.journal = Journal(folder / "metrics.jsonl")
        self.skipped: list[str] = []  # codes of subjects left out
        self.check_options()
        open_folder(config, folder)

    def check_options(self) -> None:
        """Raises ValueError for options that the run could not use."""

    @abstractmethod
    def find(self, data: Path) -> tuple[list[Subject], list[Finding]]:
        """The subjects of a data set, and what is wrong with its files."""

    @abstractmethod
    def write_phantom(self, data: Path, on_subject: Callable[[Any], None]) -> None:
        """Write the synthetic cohort that the configuration asks for."""

    @property
    def data(self) -> Path:
        """Where the data set is."""
        return self.config.data or self.folder / "data"

    @property
    def data_name(self) -> str:
        """The data set's name for people."""
        return self.config.data.resolve().name if self.config.data else "synthetic cohort"

    def subjects(self) -> list[Subject]:
        """Find or make the data set, and check it.

        Raises ValueError where files have errors and --skip-invalid isn't given.
        """
        kept, self.skipped = hosts.lead(self._subjects)
        return kept

    def _subjects(self) -> tuple[list[Subject], list[str]]:
        if self.config.data is None:
            self._make_phantom()
        say(f"Checking {self.data}")
        return usable(*self.find(self.data), self.data, self.config.skip_invalid)

    def _make_phantom(self) -> None:
        done = self.data / ".complete"
        if done.exists():
            return
        with bar("Making a synthetic cohort", sum(self.config.subjects)) as advance:
            self.write_phantom(self.data, lambda subject: advance())
        done.touch()

    def stage_record(self, name: str) -> Path:
        """Where the record of a stage is kept that is done."""
        return self.folder / "stages" / f"{name}.json"

    def once(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The record of a stage that all processes work on together, with its `seconds`; read if it is done already."""
        path = self.stage_record(name)
        record: dict[str, Any] | None = hosts.lead(lambda: read_record(path))
        if record is None:
            started = time.monotonic()
            record = {**make(), "seconds": time.monotonic() - started}
            hosts.lead(lambda: write_record(path, record))
        return record

    def each(
        self,
        stage: str,
        title: str,
        cases: Mapping[str, T],
        make: Callable[[T], dict[str, Any]],
        fits: Callable[[T, dict[str, Any]], bool] = lambda case, record: True,
    ) -> list[dict[str, Any]]:
        """A record per case, the cases shared among the processes; what an earlier start has finished is read.

        Args:
          cases: the cases by their names.
          fits: whether the record that is there is still the case's.
        """
        with bar(title, len(cases)) as advance:

            def kept(item: tuple[str, T]) -> dict[str, Any]:
                name, case = item
                path = self.stage_record(f"{stage}/{name}")
                record = kept_record(path, lambda: make(case), lambda found: fits(case, found))
                advance()
                return dict(record)

            return hosts.share(kept, list(cases.items()), threads=1)

    @hosts.led
    def write_json(self, results: Mapping[str, Any]) -> None:
        """`results.json`: what the experiment found, and what every run tells of itself."""
        told = {
            "preset": self.config.preset,
            "seed": self.config.seed,
            "n_skipped": len(self.skipped),
            "skipped": self.skipped,
            "versions": jax_setup.versions(),
            "peak_memory": jax_setup.peak_memory(),
        }
        text = json.dumps(without_nan({**results, **told}), indent=2) + "\n"
        write_whole(self.folder / "results.json", text)
