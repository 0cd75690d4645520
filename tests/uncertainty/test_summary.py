"""The numbers of the uncertainty experiment: the table of cases, and every summary by hand."""

import json
import math
from pathlib import Path

import pytest

from qcjax.uncertainty.summary import REFERENCE, summarise_uncertainty
from qcjax.uncertainty.table import COLUMNS, is_uncertainty_table, read_cases, write_cases
from qcjax.uncertainty.tables import QUANTITIES, difference, signed, table_1, table_2, told, verdict
from tests.uncertainty.uncertainty_runs import make_case_row, make_rows


def arm_rows(arm: str, dice: list[float], **columns: object) -> list[dict]:
    return [
        make_case_row(arm=arm, subject=f"Case_P{number}", dc=dc, **columns) for number, dc in enumerate(dice)
    ]


def test_table_comes_back_as_it_was(tmp_path: Path) -> None:
    rows = make_rows(n_normal=1, n_pathological=1)
    path = tmp_path / "cases.csv"
    write_cases(path, rows)
    again = read_cases(path)
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert len(again) == len(rows)
    for ours, theirs in zip(rows, again, strict=True):
        for column in COLUMNS:
            assert ours[column] == theirs[column] or (math.isnan(ours[column]) and math.isnan(theirs[column]))
    assert is_uncertainty_table(path)
    path.write_text("segmenter,view,stage\n")
    assert not is_uncertainty_table(path)
    with pytest.raises(ValueError, match="arm"):
        read_cases(path)


def test_differences_are_paired_by_subject() -> None:
    rows = arm_rows("baseline", [0.5, 0.6, 0.7]) + arm_rows("proposed", [0.6, 0.8, 0.7, 0.1])
    found = summarise_uncertainty(rows, n_resamples=200)
    assert list(found["differences"]) == ["proposed - baseline"]
    cell = found["differences"]["proposed - baseline"]["all"]["infarction"]["dc"]
    assert cell["mean"] == pytest.approx(0.1)
    assert cell["n"] == 3  # the fourth subject has no baseline
    assert cell["low"] == pytest.approx(0.0) and cell["high"] == pytest.approx(0.2)


def test_an_undefined_distance_is_counted_and_never_averaged() -> None:
    rows = [
        make_case_row(subject=f"Case_P{n}", dc=0.0 if hd is math.nan else 0.8, hd_mm=hd)
        for n, hd in enumerate([4.0, 8.0, math.nan])
    ]
    cell = summarise_uncertainty(rows, n_resamples=20)["measures"]["deterministic"]["all"]["baseline"][
        "infarction"
    ]
    assert cell["hd_mm"]["mean"] == 6.0 and cell["hd_mm"]["n_missing"] == 1
    assert told(cell["hd_mm"], QUANTITIES["hd_mm"]).endswith("1\N{NO-BREAK SPACE}undefined")


def test_false_and_missed_findings() -> None:
    volumes = [("normal", 0.0, 0.0), ("normal", 0.0, 2.0), ("pathological", 0.0, 5.0), ("pathological", 9.0, 0.0),
               ("pathological", 9.0, 7.0)]  # fmt: skip
    rows = [
        make_case_row(subject=f"Case_{n}", group=group, dc=0.5, true_volume_ml=true, volume_ml=ml)
        for n, (group, true, ml) in enumerate(volumes)
    ]
    cell = summarise_uncertainty(rows, n_resamples=20)["detection"]["baseline"]["infarction"]
    assert (cell["n_false_normal"], cell["n_normal"]) == (1, 2)
    assert (cell["n_false"], cell["n_without"]) == (2, 3)
    assert (cell["n_missed"], cell["n_with"]) == (1, 2)
    assert cell["false_ml"]["mean"] == 3.5 and cell["false_ml"]["max"] == 5.0


def test_mean_prediction_against_the_deterministic_one() -> None:
    rows = arm_rows("proposed", [0.5, 0.7]) + arm_rows("proposed", [0.6, 0.9], prediction="mean")
    found = summarise_uncertainty(rows, n_resamples=20)
    assert found["mean_prediction"]["proposed"]["infarction"]["dc"]["mean"] == pytest.approx(0.15)
    assert found["measures"]["mean"]["all"]["proposed"]["infarction"]["dc"]["mean"] == pytest.approx(0.75)
    assert found["n"]["with_truth"] == 2


def test_measures_of_a_case_count_once_per_subject() -> None:
    rows = [
        make_case_row(subject=f"Case_P{n}", structure=key, dc=0.5, ece=0.1 * n)
        for n in (1, 2)
        for key in ("myocardium", "infarction", "no_reflow")[: 4 - n]
    ]
    other = [make_case_row(subject="Case_P1", prediction="mean", dc=0.5, ece=0.7)]
    for given in (rows, [*other, *rows]):  # whatever comes first
        cell = summarise_uncertainty(given, n_resamples=20)["case"]["deterministic"]["baseline"]["ece"]
        assert cell["n"] == 2 and cell["mean"] == pytest.approx(0.15)


def test_failures_hold_every_measure_that_the_run_took() -> None:
    rows = make_rows(arms=("baseline",), n_normal=2, n_pathological=6, autoencoder=False)
    found = summarise_uncertainty(rows, n_resamples=50)["failures"]["infarction"]["baseline"]
    assert REFERENCE in found and "entropy" in found and "pdc" not in found
    assert found[REFERENCE]["spearman"]["r"] > 0.9  # the rows' certainty follows their Dice
    assert found[REFERENCE]["difference"] is None and found["entropy"]["difference"]["aurc"]["n"] == 8
    undefined = make_rows(arms=("baseline",), n_normal=4, n_pathological=6)
    cell = summarise_uncertainty(undefined, n_resamples=50)["failures"]["infarction"]["baseline"]["pdc"]
    assert cell["n"] == 10 and cell["n_undefined"] > 0


def test_summary_is_json_without_nan_and_the_same_for_the_same_seed() -> None:
    rows = make_rows(n_normal=1, n_pathological=2)
    first, second = (summarise_uncertainty(rows, 4, n_resamples=30) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second)
    given = [{column: value for column, value in row.items() if value == value} for row in rows]
    assert summarise_uncertainty(given, 4, n_resamples=30) == first
    assert first["arms"] == ["baseline", "control", "proposed"]
    assert first["positions"] == ["all", "apical", "mid", "basal"]
    assert first["n"]["by_group"] == {"normal": 1, "pathological": 2}


def test_published_rows_stand_beside_ours() -> None:
    rows = make_rows(n_normal=1, n_pathological=2)
    found = summarise_uncertainty(rows, n_resamples=20)
    first, second = table_1(found), table_2(found)
    assert [row[0] for row in first.rows] == [
        "baseline, published", "proposed, published", "baseline, ours", "control, ours", "proposed, ours",
    ]  # fmt: skip
    of_infarction = first.header.index("infarct DSC (%)")
    assert [row[of_infarction] for row in first.rows[:2]] == ["65.0 (29.7)", "67.6 (28.8)"]
    cell = found["measures"]["deterministic"]["all"]["proposed"]["infarction"]["dc"]
    assert (
        first.rows[4][of_infarction] == f"{100 * cell['mean']:.1f}\N{NO-BREAK SPACE}({100 * cell['sd']:.1f})"
    )
    zhang = dict(zip(second.header, second.rows[0], strict=True))
    assert zhang["method"] == "Zhang, published" and zhang["infarct PD (%)"] == "2.38"
    assert all(len(row) == len(table.header) for table in (first, second) for row in table.rows)


@pytest.mark.parametrize(
    ("column", "low", "high", "said"),
    [
        ("dc", 0.01, 0.02, "better"),
        ("dc", -0.02, -0.01, "worse"),
        ("hd_mm", 0.5, 1.0, "worse"),
        ("brier", -0.02, -0.01, "better"),
        ("dice_within_samples", 0.01, 0.02, "higher"),
        ("entropy", -0.02, -0.01, "lower"),
        ("variance", -0.01, 0.02, "no difference shown"),
        ("dc", 0.0, 0.02, "no difference shown"),
        ("dc", None, None, "not measured"),
    ],
)
def test_words_of_an_interval(column: str, low: float | None, high: float | None, said: str) -> None:
    cell = {"mean": 0.01, "low": low, "high": high, "n": 3}
    assert verdict(cell, QUANTITIES[column]) == said
    assert difference(cell, QUANTITIES[column]) == f"{signed(cell, QUANTITIES[column])}\n{said}"


def test_signs_and_units() -> None:
    cell = {"mean": 0.0213, "low": -0.004, "high": 0.0462, "n": 3}
    assert signed(cell, QUANTITIES["dc"]) == "+2.1 [−0.4,\N{NO-BREAK SPACE}4.6]"
    assert signed(cell | {"mean": 1e-6}, QUANTITIES["dc"]).startswith("0.0 ")
