"""The experiment from files to report."""

import csv
import json
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import qcjax.refinement.export
import qcjax.refinement.refine
import qcjax.refinement.run
from experiments import mnms2
from qcjax.labels import RV
from qcjax.refinement.refine_original import MAX_SIZES
from qcjax.refinement.table import UNCERTAINTY_COLUMNS, case_name, read_cases
from qcjax.train import arm, loop
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.journal import Journal
from tests.experiments import pinned_mnms2
from tests.seeds import seed

STAGES = {"segmenter", "selection", "control", "refined"}
TEST_CASES = 3 * 2  # three subjects above code 160, two phases


def results(run):
    """Without the times."""
    found = json.loads((run / "results.json").read_text())
    return {k: v for k, v in found.items() if k not in ("seconds", "peak_memory")}


def journal(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def check_results(run, segmenters, views, preset):
    found = json.loads((run / "results.json").read_text())
    assert found["preset"] == preset
    assert {"qcjax", "jax", "flax", "numpy"} <= set(found["versions"])
    assert set(found["ablation"]) == set(found["average"]) == set(segmenters)
    for segmenter in segmenters:
        for view in views:
            assert set(found["ablation"][segmenter][view]) == STAGES
            for row in found["ablation"][segmenter][view].values():
                assert {"mean", "sd", "n"} <= set(row["dc"]) and {"mean", "sd", "n", "n_missing"} <= set(
                    row["hd"]
                )
                assert row["dc"]["n"] == 4 and row["hd"]["n"] + row["hd"]["n_missing"] == 4
                assert sum(group["dc"]["n"] for group in row["by_disease"].values()) == 4
                assert sum(group["dc"]["n"] for group in row["by_vendor"].values()) == 4
            quality = found["qc"][segmenter][view]
            assert set(quality["reconstruction_dice"]) == {"lv", "myo", "rv"}
            ood = found["ood"][segmenter][view]
            assert set(ood["thresholds"]) == {"ED", "ES"}
            refined = [
                r
                for r in journal(run)
                if (r.get("segmenter"), r["view"], r["stage"]) == (segmenter, view, "refined")
            ]
            of_k = {r["k"]: r["ood_cases"] for r in refined}  # of two lines for one k the second
            assert ood["cases_after_k"][1:] == list(of_k.values()) and list(of_k) == sorted(of_k)
            chosen = found["candidates"][segmenter][view]
            assert {
                stage: sum(c["cases"] for c in cells) for stage, cells in chosen.items()
            } == dict.fromkeys(STAGES, TEST_CASES)
        for stage in STAGES if len(views) == 2 else ():
            dc = [found["ablation"][segmenter][view][stage]["dc"]["mean"] for view in ("SA", "LA")]
            average = found["average"][segmenter][stage]["dc"]
            value = average["mean"] if isinstance(average, dict) else average
            assert value == pytest.approx(0.75 * dc[0] + 0.25 * dc[1])
        for view in views:
            for stage in STAGES:
                assert f"{stage} {segmenter} {view} (predict and score)" in found["seconds"]
    assert found["differences"]


def check_files(run, segmenters, views):
    rows = read_cases(run / "cases.csv")
    counts = Counter((r["segmenter"], r["view"], r["stage"]) for r in rows)
    assert counts == {(s, v, t): TEST_CASES for s in segmenters for v in views for t in STAGES}
    for row in rows:
        assert row["part"] in ("validation", "test") and row["candidate"]
        for column in ("prediction_path", "reconstruction_path"):
            assert (run / row[column]).exists()
    one = rows[0]
    image, prediction = nib.load(run / one["image_path"]), nib.load(run / one["prediction_path"])
    assert prediction.shape == image.shape
    np.testing.assert_allclose(prediction.affine, image.affine, atol=1e-5)
    assert set(np.unique(prediction.dataobj)) <= {0, 1, 2, 3}
    config = json.loads((run / "config.json").read_text())
    assert config["size"] == 64 and config["supervised"]["width"] == 2 and config["versions"]["jax"]
    page = (run / "report.html").read_text()
    assert len(page) > 10_000 and not re.search(r'(src|href)="https?://[^"]*\.(js|css|png)', page)
    assert list((run / "figures").glob("*.png"))
    return rows


def test_results_of_the_paper(paper_run, cohort):
    check_results(paper_run, ("nnunet",), ("SA", "LA"), "demo")
    for stages in results(paper_run)["candidates"]["nnunet"].values():
        for stage in ("refined", "control"):  # each chosen among its own models
            assert [c["name"].split()[0] for c in stages[stage]] == [stage, stage, "means"]
    assert "Candidates, best validation loss first" in (paper_run / "report.html").read_text()
    rows = check_files(paper_run, ("nnunet",), ("SA", "LA"))
    assert {r["vendor"] for r in rows} and all(r["image_path"].startswith(str(cohort)) for r in rows)


def test_the_table_is_what_its_files_say(paper_run, seen):
    pinned_mnms2.check(paper_run, seen, target_mm=4, seed=seed())


def test_results_of_the_authors_code(original_run):
    check_results(original_run, ("nnunet", "acdc_unet"), ("SA",), "original")
    check_files(original_run, ("nnunet", "acdc_unet"), ("SA",))
    found = results(original_run)["ood"]["acdc_unet"]["SA"]
    assert set(found["thresholds"]["ED"]) == {"low", "up_voxels"}
    # refined on the validation part alone, as the authors did: one subject here
    (code,) = {r["subject"] for r in read_cases(original_run / "cases.csv") if r["part"] == "validation"}
    assert found["looked_at"] == 2
    assert {name[:3] for names in found["cases_after_k"] for name in names} == {code}
    assert not list((original_run / "best_predictions").rglob("*.safetensors"))


def test_dropout_samples_of_the_best_model(original_run, paper_run):
    rows = read_cases(original_run / "cases.csv")
    sampled = [r for r in rows if (r["segmenter"], r["stage"]) == ("acdc_unet", "segmenter")]
    for row in rows:
        values = [row[c] for c in UNCERTAINTY_COLUMNS if c != "variance_foreground"]
        assert np.isfinite(values).all() if row in sampled else np.isnan(values).all()
    assert len(sampled) == TEST_CASES and all(r["variance"] > 0 for r in sampled)
    assert len({r["variance"] for r in sampled}) == TEST_CASES
    found = results(original_run)
    assert found["mc_samples"] == 2 and list(found["failures"]) == ["acdc_unet"]
    cells = found["failures"]["acdc_unet"]["SA"]["rv"]
    assert set(cells) >= {"variance", "dice_within_samples", "pdc"} and cells["variance"]["n"] == TEST_CASES
    assert "Which measure finds the failures?" in (original_run / "report.html").read_text()
    assert not {"failures", "mc_samples"} & set(results(paper_run))
    assert not set(UNCERTAINTY_COLUMNS) & set(read_cases(paper_run / "cases.csv")[0])


def test_the_submission(paper_run):
    rows = [r for r in read_cases(paper_run / "cases.csv") if r["stage"] == "refined"]
    with zipfile.ZipFile(paper_run / "submission.zip") as archive:
        names = archive.namelist()
        expected = [
            f"submission/{r['subject']}/{r['subject']}_{r['view']}_{r['phase']}_pred.nii.gz" for r in rows
        ]
        assert sorted(names) == sorted(expected) and len(names) == 2 * TEST_CASES
        row = rows[0]
        path = Path(archive.extract(expected[0], paper_run / "unpacked"))
    ours = np.asarray(nib.load(paper_run / row["prediction_path"]).dataobj)
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), ours == RV.id)


def test_no_update_is_traced_twice(paper_run, original_run, traces):
    """Both views, all four stages, padding and several numbers of OoD cases: one trace for each compiled function.

    Only `take` may be traced once per view, whose cohorts hold different numbers of slices, and the code's refinement,
    which takes single cases, once per size of its batches.
    """
    expected = {
        "paper": {"_step.<locals>.step", "refinement_step.<locals>.step", "reconstruct", "segment"},
        "original": {
            "_step.<locals>.step",
            "original_refinement_step.<locals>.step",
            "reconstruct",
            "segment",
            "draw",
            "spread",
        },
    }
    for name, updates in expected.items():
        counts = Counter(traces[name])
        gather = [n for n in counts if n.startswith("take ")]
        by_size = [n for n in counts if "original_refinement_step" in n]
        assert all(counts[n] <= MAX_SIZES for n in by_size)
        found = {n: c for n, c in counts.items() if n not in gather}
        for update in updates:
            assert any(update in n for n in found), f"{update} was never traced in {name}"
        assert {found[n] for n in found if n not in by_size} == {1}, found
        assert max(counts[n] for n in gather) <= 2 * 2  # views, times batches of two sizes


def test_a_run_that_is_done_does_nothing_again(paper_run, experiment, cohort, copy_of, monkeypatch, capsys):
    run = copy_of(paper_run)
    before, lines = results(run), (run / "metrics.jsonl").read_text()
    monkeypatch.setattr(loop, "run_steps", lambda *args: pytest.fail("trained again"))
    monkeypatch.setattr("qcjax.refinement.run.export_stage", lambda *args: pytest.fail("predicted again"))
    experiment(run, "--preset", "demo", "--data", str(cohort))
    assert results(run) == before
    assert (run / "metrics.jsonl").read_text() == lines
    assert "Going on with" in capsys.readouterr().out


def test_what_an_earlier_stage_has_predicted_is_copied(paper_run, experiment, cohort, copy_of, monkeypatch):
    run = copy_of(paper_run)
    for path in (*run.glob("stages/selection-*.json"), *run.glob("predictions/*/selection/*")):
        path.unlink()
    predicted, score = [], qcjax.refinement.export._score
    monkeypatch.setattr(
        qcjax.refinement.export, "_score", lambda *args: predicted.append(args[1]) or score(*args)
    )
    experiment(run, "--preset", "demo", "--data", str(cohort))
    rows = read_cases(run / "cases.csv")
    single = {(case_name(r), r["candidate"]): r for r in rows if r["stage"] == "segmenter"}
    selected = {(case_name(r), r["candidate"]): r for r in rows if r["stage"] == "selection"}
    shared = single.keys() & selected.keys()
    assert shared and predicted == ["selection"] * (len(selected) - len(shared))
    for case in shared:
        files = [run / of[case]["prediction_path"] for of in (single, selected)]
        assert files[0] != files[1] and files[0].read_bytes() == files[1].read_bytes()
    assert (run / "cases.csv").read_text() == (paper_run / "cases.csv").read_text()


def test_a_kill_in_every_stage_makes_no_difference(paper_run, experiment, cohort, tmp_path, monkeypatch):
    """Epochs, predictions and the report, cut off one after the other; the results are the same."""
    run = tmp_path / "cut"
    options = ("--preset", "demo", "--data", str(cohort))

    class KilledError(BaseException):
        pass

    def killing(function, call):
        calls = []

        def wrapper(*args, **kwargs):
            calls.append(None)
            if len(calls) == call:
                raise KilledError
            return function(*args, **kwargs)

        return wrapper

    places = (
        (Journal, "append", 2),  # the autoencoder's second epoch: saved, not written down
        (Journal, "append", 2),  # the segmenter's second
        (qcjax.refinement.run, "export_stage", 2),
        (qcjax.refinement.export, "_score", 3),
        (qcjax.refinement.refine, "validate_segmenter", 2),
        (mnms2, "write_report", 1),
    )
    opened = []

    class Recorded(Checkpoints):
        def __init__(self, *args):
            super().__init__(*args)
            opened.append(self)

    monkeypatch.setattr(arm, "Checkpoints", Recorded)
    killed = 0
    for owner, attribute, call in places:
        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, killing(getattr(owner, attribute), call))
            with pytest.raises(KilledError):
                experiment(run, *options)
            killed += 1
        for checkpoints in opened:  # what a killed process has under way does not go on beside the next one
            checkpoints.wait()
    experiment(run, *options)
    assert killed == len(places)
    assert results(run) == results(paper_run)
    assert (run / "cases.csv").read_text() == (paper_run / "cases.csv").read_text()
    assert (run / "submission.zip").read_bytes() == (paper_run / "submission.zip").read_bytes()


def test_other_options_on_the_same_folder_are_refused(paper_run, refusal, cohort):
    said = refusal(paper_run, "--preset", "demo", "--data", str(cohort), "--seed", str(seed(5)))
    assert f"{paper_run}: holds a run with seed = {seed()} (now {seed(5)})" in said and "--out" in said


@pytest.mark.parametrize(
    ("part", "options", "said"),
    [
        ("test", (), "no SA cases in the validation and test parts found"),
        ("train", (), "no labelled training cases of --views SA, LA found"),
        ("LA", ("--views", "LA"), "no labelled training cases of --views LA found"),
    ],
)
def test_what_is_needed_and_is_not_there_is_told_of_before_training(
    cohort, refusal, tmp_path, part, options, said
):
    data = Path(shutil.copytree(cohort, tmp_path / "data"))
    table = tmp_path / "split.csv"
    codes = sorted(p.name for p in (data / "dataset").iterdir())
    kept = {"test": "train", "train": "test"}.get(part)
    if kept is None:
        for path in data.rglob(f"*_{part}_*"):
            path.unlink()
    else:
        table.write_text("SUBJECT_CODE,PART\n" + "".join(f"{code},{kept}\n" for code in codes))
        options = (*options, "--split", str(table))
    assert said in refusal(tmp_path / "run", "--preset", "demo", "--data", str(data), *options)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_refinement_on_the_validation_part_needs_one(cohort, refusal, tmp_path):
    codes = sorted(p.name for p in (cohort / "dataset").iterdir())
    table = tmp_path / "split.csv"
    parts = ["train"] * 4 + ["test"] * 3
    table.write_text("SUBJECT_CODE,PART\n" + "".join(map("{},{}\n".format, codes, parts)))
    options = ("--preset", "demo", "--data", str(cohort), "--split", str(table))
    said = refusal(tmp_path / "run", *options, "--refinement.cases", "validation")
    assert "no SA cases in the validation part found" in said and "--refinement.cases all" in said


def test_broken_files_stop_the_run_or_leave_their_subjects_out(cohort, experiment, refusal, tmp_path, capsys):
    """One view only, a subject left out, test subjects without truth, another split: everything unusual at once."""
    data = Path(shutil.copytree(cohort, tmp_path / "data"))
    for path in data.rglob("*_LA_*"):
        path.unlink()
    codes = sorted(p.name for p in (data / "dataset").iterdir())
    broken = data / "dataset" / codes[0] / f"{codes[0]}_SA_ED.nii.gz"
    broken.write_bytes(broken.read_bytes()[:1000])
    for path in (data / "dataset" / codes[-1]).glob("*_gt.nii.gz"):
        path.unlink()
    out = tmp_path / "run"
    options = ("--preset", "demo", "--data", str(data))
    said = refusal(out, *options)
    assert "1 error found, expected none" in said and "--skip-invalid" in said
    shutil.rmtree(out)
    experiment(out, *options, "--skip-invalid")
    printed = capsys.readouterr().out
    assert (
        "There is no LA view" in printed and "Left out, because their files have errors: 1 subject" in printed
    )
    found = results(out)
    assert found["skipped"] == [codes[0]] and found["n_skipped"] == 1
    assert set(found["ablation"]["nnunet"]) == {"SA"}
    rows = read_cases(out / "cases.csv")
    blind = [r for r in rows if r["subject"] == codes[-1]]
    assert len(blind) == 2 * len(STAGES)
    assert all(np.isnan(r["dc_rv"]) and np.isfinite(r["volume_rv_ml"]) for r in blind)
    assert {r["subject"] for r in rows} == set(codes[4:])


def test_gated_arms_stand_beside_the_others_and_their_masks_are_one_of_two(
    cohort, experiment, refusal, tmp_path
):
    options = ("--preset", "ours", "--data", str(cohort), "--views", "SA", "--refinement.gate", "0")
    options = (*options, "--supervised.no-intensity")  # tested by itself; it takes long to compile
    said = refusal(tmp_path / "few", *options)
    assert "subjects in D_val found, expected at least 9" in said and "--refinement.gate-by pdc" in said
    out = experiment(tmp_path / "run", *options, "--refinement.gate-by", "pdc")
    found = results(out)
    stages = {"segmenter", "mean", "largest", "baseline", "selection", "control", "refined"}
    gated = {"gated", "random_gate", "oracle_gate"}
    assert set(found["ablation"]["nnunet"]["SA"]) == stages | gated
    arms = found["arms"]["nnunet"]["SA"]
    assert arms["source"] == "baseline" and arms["cases"] == TEST_CASES
    rows = {(r["stage"], case_name(r)): r for r in read_cases(out / "cases.csv")}
    cases = {name for _, name in rows}
    taken = {stage: 0 for stage in gated}
    for name in cases:
        source, refined = rows["baseline", name], rows["refined", name]
        for stage in gated:
            row = rows[stage, name]
            assert row["candidate"] in (source["candidate"], refined["candidate"])
            own = refined if row["candidate"] == refined["candidate"] else source
            taken[stage] += own is refined
            assert (out / row["prediction_path"]).read_bytes() == (out / own["prediction_path"]).read_bytes()
            assert stage in row["prediction_path"]
        gain = np.mean([refined[f"pdc_{k}"] - source[f"pdc_{k}"] for k in ("lv", "myo", "rv")])
        assert gain > 0 or rows["gated", name]["candidate"] == source["candidate"]
    assert taken["gated"] == taken["random_gate"]
    oracle, single = (
        found["ablation"]["nnunet"]["SA"]["oracle_gate"],
        found["ablation"]["nnunet"]["SA"]["baseline"],
    )
    assert oracle["hd"]["n_missing"] <= single["hd"]["n_missing"]
    assert "arms, where cases are strange" in (out / "report.html").read_text()


def test_the_phantom_needs_no_data(experiment, tmp_path, monkeypatch, capsys):
    """The run makes its cohort once, prints what it found, and gives it the split of the codes."""

    class Enough(Exception):
        pass

    def stop(*args):
        raise Enough

    monkeypatch.setattr("experiments.mnms2.run_arm", stop)
    for _ in range(2):
        with pytest.raises(Enough):
            experiment(tmp_path / "run", "--subjects", "2", "1", "1", "--views", "LA")
        printed = capsys.readouterr().out
    assert "train" in printed and "2 in" not in printed.split("Checking")[0]
    with (tmp_path / "run" / "data" / "dataset_information.csv").open() as file:
        assert len([r for r in csv.DictReader(file) if r["SUBJECT_CODE"]]) == 4
    assert qcjax.refinement.run.VIEWS == ("SA", "LA")
