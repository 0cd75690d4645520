"""What a training's page says of predicted quality, from drawn records."""

from pathlib import Path

import numpy as np
import pytest

from qcjax.labels import structures_named
from qcjax.quality.model import Estimate
from qcjax.segmentation.judge import Record, reference_of
from qcjax.segmentation.quality_page import draw_reliability, draw_risk, quality_findings, quality_tables

KEYS = ("lv", "rv")


@pytest.fixture(scope="module")
def records() -> list[Record]:
    made = []
    for i in range(12):
        of = {k: {"dice": 0.80 + 0.01 * i, "hd_mm": 10.0, "volume_ml": 100.0 - i, "pdc": 0.9} for k in KEYS}
        made.append({"subject": f"s{i // 2}", "phase": ("ED", "ES")[i % 2], "structures": of})
    made[11]["structures"]["rv"] = {"dice": 0.0, "hd_mm": None, "volume_ml": 0.0, "pdc": None}
    return made


@pytest.fixture(scope="module")
def estimates(records: list[Record]) -> list[dict[str, Estimate]]:
    """0.02 too high; a third of the bounds don't hold."""
    found = []
    for i, record in enumerate(records):
        dice = record["structures"]["lv"]["dice"]
        found.append({k: Estimate(dice + 0.02, dice + (0.01 if i % 3 == 0 else -0.05), 8, 12) for k in KEYS})
    found[11]["rv"] = Estimate()
    return found


def test_errors_and_coverage_by_group(records: list[Record], estimates: list[dict[str, Estimate]]) -> None:
    every, by_phase = quality_tables(
        records, estimates, {"phase": [r["phase"] for r in records], "site": [""] * 12}
    )
    assert every.rows[0] == ["LV", "12", "0.020", "+0.020", "67%", "100%"]
    assert every.rows[1][1] == "11"  # one lacks the structure
    assert [row[0] for row in by_phase.rows] == ["ED, lv", "ED, rv", "ES, lv", "ES, rv"]
    assert "predicted to within 0.020 on average; in 67% of masks" in quality_findings(records, estimates)[0]


def test_figures_are_drawn(
    records: list[Record], estimates: list[dict[str, Estimate]], tmp_path: Path
) -> None:
    for draw in (draw_reliability, draw_risk):
        path = draw(records, estimates, structures_named(KEYS), tmp_path / f"{draw.__name__}.png")
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_reference_holds_what_is_known_and_rises(
    records: list[Record], estimates: list[dict[str, Estimate]]
) -> None:
    found = reference_of(records, estimates)
    assert found["volume_ml"]["lv"] == [89.0 + i for i in range(12)]
    assert len(found["pdc"]["rv"]) == 11 and len(found["predicted_dice"]["rv"]) == 11
    assert np.diff(found["predicted_dice"]["lv"]).min() > 0
    assert "predicted_dice" not in reference_of(records, None)
