"""The monitoring and the uncertainty experiment as whole runs of two processes, against one of as many devices."""

import csv
import json
import math
import shutil

import pytest

from qcjax.phantom import AcdcPhantomConfig, LgePhantomConfig, write_acdc, write_emidec
from tests.processes import both, cluster, start
from tests.seeds import seed
from tests.slow import slow

AUTOENCODER = {"width": 2, "latent": 4, "epochs": 2, "steps": 3, "batch": 6, "learning-rate": 1e-4}
SEGMENTER = {
    "width": 2,
    "stages": 3,
    "epochs": 2,
    "steps": 3,
    "batch": 6,
    "optimiser": "sgd",
    "learning-rate": 0.01,
}
VOLUMES = {"width": 2, "max-stages": 3, "epochs": 2, "steps": 2, "batch": 4, "samples": 2, "optimiser": "sgd"}


def options(group, values):
    return [text for name, value in values.items() for text in (f"--{group}.{name}", str(value))]


ACDC = ["--preset", "demo", "--size", "64", "--spacing-mm", "5", "--monitor.spacing-mm", "5"]
ACDC += [*options("supervised", SEGMENTER), *options("monitor.autoencoder", AUTOENCODER)]
EMIDEC = [
    "--preset",
    "demo",
    "--folds",
    "2",
    "--arms",
    "baseline",
    "proposed",
    "--spacing-mm",
    "10",
    "6",
    "6",
]
EMIDEC += ["--size", "32", "--patch", "8", "32", "32", "--mc-samples", "3", *options("training", VOLUMES)]
EMIDEC += ["--monitor.size", "64", "--monitor.spacing-mm", "3", *options("monitor.autoencoder", AUTOENCODER)]

RUNS = {
    "acdc": (
        ACDC,
        lambda to: write_acdc(to, AcdcPhantomConfig(5, 2, seed=0, matrix_scale=0.3)),
        "measures.csv",
    ),
    "emidec": (EMIDEC, lambda to: write_emidec(to, LgePhantomConfig(2, 4, matrix_scale=0.4)), "cases.csv"),
}


def numbers(path):
    """The rows of a table, numbers as such, but for what depends on where the run lies or how long it took."""
    rows = []
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        kept = {k: v for k, v in row.items() if not k.endswith("_path") and "seconds" not in k}
        rows.append({k: _number(v) for k, v in kept.items()})
    return rows


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text


@slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one_run(name, tmp_path):
    """To 1e-3: Adam, which trains the monitors, makes full steps of the signs of rounding where batch norm cancels a
    bias's gradient; segmenters by Adam part by more than that in the few steps of a test."""
    arguments, write, table = RUNS[name]
    data = write(tmp_path / "data")

    def command(out, *more):
        return (
            "-m",
            f"experiments.{name}",
            *arguments,
            "--seed",
            str(seed()),
            "--data",
            str(data),
            "--out",
            str(tmp_path / out),
            *more,
        )

    process = start(command("one", "--devices", "4"), tmp_path / "one.log", 4)
    assert process.wait(900) == 0, (tmp_path / "one.log").read_text()
    both(lambda port, i: command("two", *cluster(port, i)), tmp_path)
    one, two = (tmp_path / out for out in ("one", "two"))
    journals = [sorted(p.relative_to(run) for p in run.rglob("metrics.jsonl")) for run in (one, two)]
    assert journals[0] == journals[1] and journals[0]
    for journal in journals[0]:
        ours, theirs = (
            [json.loads(line) for line in (run / journal).read_text().splitlines()] for run in (one, two)
        )
        assert [(r["stage"], r["epoch"]) for r in ours] == [(r["stage"], r["epoch"]) for r in theirs]
        for x, y in zip(ours, theirs, strict=True):
            for loss in (key for key in x if key.endswith("_loss")):
                assert x[loss] == pytest.approx(y[loss], rel=1e-3), (x["stage"], x["epoch"], loss)
    ours, theirs = numbers(one / table), numbers(two / table)
    assert len(ours) == len(theirs) > 0
    for x, y in zip(ours, theirs, strict=True):
        assert x.keys() == y.keys()
        for column, value in x.items():
            if isinstance(value, str) or isinstance(y[column], str):
                assert column in ("reason", "rules", "flag", "verdict") or value == y[column], column
            elif column == "dc":
                assert math.isclose(value, y[column], abs_tol=0.02), (x, y)
    assert (two / "report.html").exists() and not list(two.rglob("*.partial"))
    shutil.rmtree(two)
