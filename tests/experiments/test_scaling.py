"""The measurements of many devices and many masks, at sizes that compile in seconds."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks import scaling
from experiments.benchmarks.scaling_steps import slices
from experiments.benchmarks.scoring_estimate import alone_at_a_time, device_seconds, estimate
from experiments.benchmarks.scoring_parts import HOST_PARTS, centred


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the command on two devices."""
    path = tmp_path_factory.mktemp("scaling") / "in" / "scaling.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        patch.setattr(scaling, "QUICK", replace(scaling.QUICK, counts=(2,)))
        assert scaling.main(["--quick", "--out", str(path)]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_losses_are_those_of_one_device(results: dict[str, Any]) -> None:
    for name, batch in (("weak", 4), ("strong", 4)):
        (row,) = results[name]
        assert (row["devices"], row["batch"]) == (2, batch)
        assert row["same"] and row["difference"] <= 1e-4 and np.isfinite(row["loss"])
        assert 0 < row["step_s"]["low"] <= row["step_s"]["median"] <= row["step_s"]["high"]
    (cost,) = results["overhead"]
    assert cost["plain_s"]["median"] > 0 and cost["machinery_s"]["median"] > 0
    assert cost["within_limit"] == (cost["overhead_s"]["median"] <= 1e-3)
    assert "not speed-up" in results["note"] and results["quick"]


def test_every_part_of_scoring_is_timed(results: dict[str, Any]) -> None:
    parts = results["scoring_parts"]
    assert set(parts["seconds"]) == {*HOST_PARTS, "device", "journal", "merging"}
    assert all(len(s) == 2 and min(s) > 0 for s in parts["seconds"].values())
    assert parts["bytes_read"] > 0 and parts["bytes_written"] > 0 and parts["flop"] > 0
    places = [(row["machines"], row["shares"]) for row in results["scoring"]["estimates"]]
    assert places == [(1, 1), (1, 4), (8, 1), (8, 4)]


def test_the_tables_have_every_figure(results: dict[str, Any]) -> None:
    text = scaling.plain(results)
    assert "Emulated on" in text and "figures mean nothing" in text and "assumed: " in text
    for row in results["scoring"]["estimates"]:
        assert f"{row['masks_per_second']:.0f}" in text and row["bound_by"] in text
    for name in results["scoring_parts"]["seconds"]:
        assert f"\n{name}  " in text


def test_losses_that_differ_end_with_1(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    row = scaling.scaled(2, {"loss": 1.0, "loss_of_one_device": 1.001}, [1.0])
    assert (
        not row["same"] and not scaling.scaled(2, {"loss": np.nan, "loss_of_one_device": 1.0}, [1.0])["same"]
    )
    changed = results | {"weak": [results["weak"][0] | row]}
    monkeypatch.setattr(scaling, "measure", lambda s: changed)
    assert scaling.main(["--quick"]) == 1


def test_overhead_is_the_difference_within_rounds() -> None:
    row = scaling.overhead(4, [1.0, 5.0, 2.0], [1.0005, 5.001, 2.002])
    assert row["overhead_s"] == {
        k: pytest.approx(v) for k, v in dict(median=1e-3, low=5e-4, high=2e-3).items()
    }
    assert scaling.overhead(4, [1.0], [1.0009])["within_limit"]
    assert not scaling.overhead(4, [1.0], [1.0011])["within_limit"]


def parts(host: float = 0.016, device: float = 0.0001, gain: float = 2.0) -> dict[str, Any]:
    """Measured on a GPU machine with two processors."""
    seconds = {name: [host / 4] for name in HOST_PARTS} | {
        "device": [device],
        "journal": [0.0],
        "merging": [1e-5],
    }
    return {
        "seconds": seconds, "gain_of_threads": [gain], "threads": 2, "device": "gpu",
        "bytes_read": 2**20, "bytes_written": 2**20, "flop": 1e10, "batches": 1.25,
    }  # fmt: skip


def test_the_slowest_sets_the_pace() -> None:
    one = estimate(parts(), 1, 1)  # 16 cores, 16 ms: 1000 masks/s
    assert one.bound_by == "cores" and one.masks_per_second == pytest.approx(1000)
    assert one.hours == pytest.approx(200 / 3600) and one.mib_per_second == pytest.approx(2000)
    eight = estimate(parts(), 8, 1)
    assert eight.hours == pytest.approx((25 + 2) / 3600)  # with the merging
    assert eight.masks_per_second == pytest.approx(200_000 / 27)
    slow = estimate(parts(device=0.01), 1, 1)
    assert slow.bound_by == "GPU" and slow.masks_per_second == pytest.approx(100)
    locked = estimate(parts(gain=1.0), 1, 1)  # threads gain nothing
    assert locked.bound_by == "the interpreter's lock" and locked.masks_per_second == pytest.approx(1 / 0.016)
    shared = estimate(parts(gain=1.0), 1, 4)
    assert shared.hours == pytest.approx(locked.hours / 4 + 2 / 3600)


def test_what_threads_do_one_at_a_time() -> None:
    assert alone_at_a_time(parts(gain=2.0)) == 0 and alone_at_a_time(parts(gain=2.5)) == 0
    assert alone_at_a_time(parts(gain=1.0)) == 1 and alone_at_a_time(parts(gain=0.9)) == 1
    assert alone_at_a_time(parts(gain=4 / 3)) == pytest.approx(0.5)
    assert alone_at_a_time(parts() | {"threads": 1}) == 0


def test_the_device_is_measured_or_assumed() -> None:
    assert device_seconds(parts(device=0.5)) == (0.5, "measured on gpu")
    seconds, source = device_seconds(parts() | {"device": "cpu"})
    assert seconds == pytest.approx(1e10 / 5e12 + 1.25e-3)
    assert source == "assumed: 10 GFLOP per mask at 5 TFLOP/s and 1 ms per batch"


def test_a_mask_is_cropped_and_padded_around_its_middle() -> None:
    found = centred(np.arange(1, 6).reshape(5, 1, 1), (3, 2, 1))
    assert found.shape == (3, 2, 1) and found[:, 0, 0].tolist() == [2, 3, 4] and not found[:, 1].any()


def test_every_structure_is_in_the_slices() -> None:
    batch = slices(3, 16)
    assert batch.image.shape == (3, 16, 16, 1) and set(np.unique(batch.label)) == {0, 1, 2, 3}


def test_the_number_of_devices_replaces_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", f"--xla_one=1 {scaling.FLAG}=8")
    assert scaling.environment(2)["XLA_FLAGS"] == f"--xla_one=1 {scaling.FLAG}=2"
    assert scaling.environment(None)["XLA_FLAGS"] == "--xla_one=1"


def test_a_measuring_process_that_ends_is_told_of() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "raise SystemExit(3)"], stdout=subprocess.PIPE, text=True
    )
    with process, pytest.raises(RuntimeError, match="ended with code 3"):
        scaling.answer(process)
