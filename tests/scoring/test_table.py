"""A case's line and the summary of some, by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcjax.data.geometry import Axes
from qcjax.inference.entries import Entry
from qcjax.inference.monitor import Score
from qcjax.scoring.table import ScoreJournal, largest_doubt, score_line, summarise
from tests.fake_monitor import FakeMonitor, draw_mask

VOLUMES = (10.0, 20.0, 30.0)


@pytest.fixture
def score(monitor: FakeMonitor) -> Score:
    """All of the first slice of the first structure is lost, all of the last one of the second."""
    mask = np.repeat(draw_mask()[..., :1], 3, axis=2)
    found = monitor.score_all([mask], (1.5, 1.5, 8.0))[0]
    by_slice = np.ones_like(found.slice_pdc)
    by_slice[0, 0], by_slice[2, 1], by_slice[:, 2] = 0.2, 0.1, np.nan
    return replace(found, slice_pdc=by_slice)


def test_the_worst_slice_is_counted_from_one_along_the_files_own_axis(score: Score) -> None:
    found = score_line(score, VOLUMES, [])["structures"]
    assert [found[key]["worst_slice"] for key in ("lv", "myo", "rv")] == [1, 3, None]
    turned = score_line(score, VOLUMES, [], axes=Axes(flipped=(False, False, True)))["structures"]
    assert [turned[key]["worst_slice"] for key in ("lv", "myo", "rv")] == [3, 1, None]
    assert [found[key]["volume_ml"] for key in ("lv", "myo", "rv")] == list(VOLUMES)


def test_a_case_is_doubted_as_its_most_doubtful_structure(score: Score) -> None:
    line = score_line(score, VOLUMES, [], np.array([0.5, 2.0, np.nan]))
    assert largest_doubt(line) == 2
    assert math.isnan(largest_doubt(score_line(score, VOLUMES, [])))


def entry(status: str, suspicion: float) -> Entry:
    return Entry("a", "a.nii", 1, 1, False, status, suspicion, 0.1, 1, 0)


def test_counts_by_hand(score: Score) -> None:
    def line(*decisions: str, verdict: str = "", **more: object) -> dict[str, object]:
        of = {k: {"verdict": "", "decision": d} for k, d in zip(("lv", "rv"), decisions, strict=True)}
        of["rv"]["verdict"] = verdict
        return {"structures": of, **more}

    lines = [
        line("accept", "accept"),
        line("accept", "review", verdict="suspicious", image_error="none"),
        line("reject", "review", verdict="erroneous", geometry="turned"),
        line("", "", seems_swapped=True),
    ]
    entries = [entry("", 0.5), entry("suspicious", 2.0), entry("erroneous", np.inf), entry("", 1.5)]
    found = summarise([*entries, entry("error", np.nan)], lines, ("lv", "rv"))
    assert found["decisions"] == {"accept": 1, "review": 1, "reject": 1}
    assert list(found["decisions"]) == [
        "accept",
        "review",
        "reject",
    ]  # as the terminal and the page tell them
    assert (found["cases"], found["scored"], found["untouched"]) == (5, 4, 2)
    assert found["untouched_with_suspicion_above_1"] == 1
    assert (found["without_image"], found["with_unusual_geometry"], found["seem_swapped"]) == (1, 1, 1)
    assert found["structures"]["rv"] == {"erroneous": 1, "suspicious": 1}
    assert found["structures"]["lv"] == {"erroneous": 0, "suspicious": 0}


def test_the_journal_keeps_the_larger_of_suspicion_and_doubt(score: Score, tmp_path: Path) -> None:
    about = {"name": "a", "path": "a.nii", "size": 1, "mtime_ns": 2, "seconds": 0.1}
    sure = replace(score, suspicion=0.5)
    for doubt, expected in ((2.0, 2.0), (0.1, 0.5), (np.nan, 0.5)):
        journal = ScoreJournal(tmp_path / f"{doubt}.jsonl")
        journal.append(about | score_line(sure, VOLUMES, [], np.array([doubt, 0.0, np.nan])))
        found = journal.entries["a.nii"]
        assert (found.suspicion, found.frames, found.size, found.mtime_ns) == (expected, 1, 1, 2)
