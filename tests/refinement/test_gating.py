"""The gated arms: whose mask each case gets, what predicts its quality, and the table of all arms."""

from dataclasses import replace

import numpy as np
import pytest

from qcjax.data.subject import Subject
from qcjax.labels import CARDIAC
from qcjax.quality.model import QualityModel
from qcjax.refinement.arms import GROUPS, arms_tables, compare_arms
from qcjax.refinement.gating import accepted, gate_source
from qcjax.refinement.prediction import known_case, predicted_columns, signals
from qcjax.refinement.table import read_cases, write_cases
from tests.drawn import SPACING_MM, drawn_heart
from tests.refinement.conftest import make_row
from tests.train.arms import CONFIG

BY_PDC = replace(CONFIG, refinement=replace(CONFIG.refinement, gate=0.02, gate_by="pdc"))
BY_QUALITY = replace(CONFIG, refinement=replace(CONFIG.refinement, gate=0.02))


def pairs(column: str) -> list[tuple[dict, dict]]:
    """Three cases: better, the same, worse; by the truth the last one is better."""
    found = []
    for gain, hd in ((0.1, 12.0), (0.0, 10.0), (-0.1, 4.0)):
        of = {column.format(s.key): 0.7 for s in CARDIAC}
        after = {column.format(s.key): 0.7 + gain for s in CARDIAC}
        found.append((make_row(hd_rv_mm=10.0, **of), make_row(hd_rv_mm=hd, **after)))
    return found


@pytest.mark.parametrize(("column", "config"), [("pdc_{}", BY_PDC), ("predicted_dice_{}", BY_QUALITY)])
def test_the_gate_compares_what_it_is_told_to(column, config):
    assert accepted("gated", pairs(column), config).tolist() == [True, False, False]
    assert accepted("random_gate", pairs(column), config).sum() == 1
    assert accepted("oracle_gate", pairs(column), config).tolist() == [False, False, True]


def test_without_predictions_the_gate_keeps_to_the_source():
    assert not accepted("gated", pairs("pdc_{}"), BY_QUALITY).any()


def test_it_keeps_to_the_baseline_where_there_is_one():
    assert gate_source(["segmenter", "refined"]) == "segmenter"
    assert gate_source(["segmenter", "baseline", "refined"]) == "baseline"


def test_quality_learnt_from_shifted_hearts_ranks_new_ones_and_knows_what_is_absent():
    truth = drawn_heart()
    cases = []
    for subject in range(12):
        for shift in (subject % 4, 1 + subject % 3):
            mask = np.roll(truth, shift, 1)
            cases.append(known_case(f"s{subject}", mask, truth, truth, SPACING_MM))
    assert cases[0].dice == [1.0] * 3 and cases[0].hd_mm == [0.0] * 3
    quality = QualityModel.fit(cases, [s.key for s in CARDIAC])
    assert quality is not None
    near, far = (predicted_columns(quality, np.roll(truth, n, 1), truth, SPACING_MM) for n in (1, 3))
    assert set(near) == {f"predicted_dice_{s.key}" for s in CARDIAC}
    assert all(near[k] > far[k] + 0.02 for k in near)
    lacking = np.where(truth == 3, 0, truth)
    assert predicted_columns(quality, lacking, truth, SPACING_MM)["predicted_dice_rv"] == 0


def test_signals_dont_depend_on_probabilities():
    assert not {"confidence", "entropy", "worst_slice"} & set(
        signals(drawn_heart(), drawn_heart(), SPACING_MM)
    )


def made_rows():
    """Eight test subjects, the last four of a vendor or a disease that training hasn't; every arm known by hand."""
    rows = []
    for i in range(8):
        vendor, disease = ("X", "NOR") if i in (4, 5) else ("GE", "TRI") if i in (6, 7) else ("GE", "NOR")
        strange = i >= 4
        hd = {"segmenter": 12.0, "baseline": 10.0, "control": 10.0, "refined": 7.0 if strange else 11.0}
        hd |= {
            "gated": 7.0 if strange else 10.0,
            "random_gate": 9.0,
            "oracle_gate": hd["refined"] if strange else 10.0,
        }
        for stage, value in hd.items():
            name = "refined 1" if stage == "refined" or (stage == "gated" and strange) else "epoch 3"
            rows.append(
                make_row(
                    stage=stage,
                    subject=str(201 + i),
                    vendor=vendor,
                    disease=disease,
                    hd_rv_mm=value + 0.1 * i,
                    hd95_rv_mm=value / 2,
                    dc_rv=0.8,
                    candidate=name,
                )
            )
    return rows


def test_the_arms_are_compared_with_the_baseline_by_group():
    subjects = [Subject("001", "NOR", "GE", "train", (), {})]
    found = compare_arms(made_rows(), subjects, BY_PDC)["nnunet"]["SA"]
    assert (found["source"], found["cases"], found["taken"]) == ("baseline", 8, 4)
    assert tuple(found["groups"]) == GROUPS
    sizes = {name: group["stages"]["gated"]["hd"]["n"] for name, group in found["groups"].items()}
    assert sizes == {"all": 8, "unseen vendor": 2, "unseen disease": 2, "in distribution": 4}
    vendor = found["groups"]["unseen vendor"]["differences"]
    assert vendor["gated"]["hd"]["mean"] == pytest.approx(-3)
    assert found["groups"]["in distribution"]["differences"]["gated"]["hd"]["mean"] == pytest.approx(0)
    assert found["groups"]["in distribution"]["differences"]["refined"]["hd"]["mean"] == pytest.approx(1)
    p = vendor["gated"]["hd"]
    assert p["p"] == pytest.approx(0.5, abs=0.05) and p["p_holm"] == pytest.approx(1.0, abs=0.05)
    assert "p_holm" not in vendor["refined"]["hd"]


def test_the_tables_name_every_arm_and_what_the_gate_takes():
    subjects = [Subject("001", "NOR", "GE", "train", (), {})]
    results = {"arms": compare_arms(made_rows(), subjects, BY_PDC)}
    tables = arms_tables(results, "nnunet")
    assert len(tables) == 4 and "takes 4 of 8" in tables[0].note
    by_arm = {row[0]: row for row in tables[1].rows}
    assert {"single best", "baseline", "control", "refined", "oracle gate", "random gate", "gated"} <= set(
        by_arm
    )
    assert "Holm" in by_arm["gated"][6] and by_arm["gated"][4].startswith("−3.0")
    assert arms_tables({}, "nnunet") == []


def test_predicted_columns_are_written_and_read(tmp_path):
    rows = [make_row(predicted_dice_rv=0.75, predicted_dice_lv=0.5, predicted_dice_myo=np.nan)]
    write_cases(tmp_path / "cases.csv", rows)
    (found,) = read_cases(tmp_path / "cases.csv")
    assert found["predicted_dice_rv"] == 0.75 and np.isnan(found["predicted_dice_myo"])
