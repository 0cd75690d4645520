"""Every number of the refinement tables on a drawn cohort, worked out again by other means."""

import math

import numpy as np

from qcjax.refinement.summary import summarise
from qcjax.refinement.table import CaseRow
from tests.experiments import pinned_mnms2
from tests.refinement.conftest import make_row

STRUCTURES = ("lv", "myo", "rv")


def rows_of(seed: int) -> list[CaseRow]:
    """Two segmenters, both views, four stages; of six subjects two are for validation; some distances undefined."""
    rng = np.random.default_rng(seed)
    rows = []
    for segmenter in ("nnunet", "acdc_unet"):
        for view in ("SA", "LA"):
            for stage in pinned_mnms2.STAGES:
                for i in range(6):
                    for phase in ("ED", "ES"):
                        part = "test" if i < 4 else "validation"
                        row = make_row(
                            segmenter=segmenter, view=view, stage=stage, subject=f"{200 + i}", phase=phase
                        )
                        row |= {"part": part, "disease": "ABA"[i % 3], "vendor": "XXY"[i % 3]}
                        for key in STRUCTURES:
                            absent = rng.random() < 0.1
                            dc, hd = rng.uniform(0, 1), rng.uniform(2, 60)
                            row |= {
                                f"dc_{key}": 0.0 if absent else dc,
                                f"hd_{key}_mm": math.nan if absent else hd,
                            }
                            row |= {f"pdc_{key}": rng.uniform(0, 1), f"phd_{key}_mm": rng.uniform(2, 60)}
                            row |= {f"volume_{key}_ml": rng.uniform(20, 200)}
                            row |= {f"truth_volume_{key}_ml": rng.uniform(20, 200)}
                        rows.append(row)
    rows[0]["volume_rv_ml"] = 0.0  # no ejection fraction
    return rows


def test_every_number_of_the_tables() -> None:
    rows = rows_of(0)
    pinned_mnms2.check_tables(summarise(rows, n_resamples=100, seed=5), rows, seed=5, draws=100)


def test_rows_in_another_order_give_the_same() -> None:
    rows = rows_of(1)
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    found = summarise(shuffled, n_resamples=20, seed=2)
    pinned_mnms2.check_tables(found, rows, seed=2, draws=20)


def test_2000_draws_of_seed_0_unless_told_otherwise() -> None:
    rows = rows_of(2)
    assert summarise(rows) == summarise(rows, n_resamples=2000, seed=0)


def test_without_a_subject_that_has_both_views_there_is_no_average_difference() -> None:
    rows = [
        make_row(view=view, stage=stage, subject=subject, dc_rv=0.5, hd_rv_mm=9.0)
        for view, subject in (("SA", "201"), ("LA", "202"))
        for stage in ("segmenter", "refined")
    ]
    assert summarise(rows, n_resamples=5)["differences"]["nnunet"]["AVG"] == {}
