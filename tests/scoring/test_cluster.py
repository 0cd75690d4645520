"""Masks scored by the workers of a cluster: the table of one process, byte for byte, though a worker is killed."""

import json
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qcjax.inference.monitor import DESCRIPTION, Monitor
from qcjax.runtime.cluster import Cluster
from qcjax.scoring.score import ScoringRun
from qcjax.scoring.stream import monitor_sha256, work
from tests.cluster_work import one_killed_after
from tests.drawn_monitor import SPACING_MM, draw, save_cases, training

N = 60


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Monitor:
    folder = tmp_path_factory.mktemp("monitor")
    (folder / "cases").mkdir()
    return training(save_cases(folder / "cases"), folder / "monitor", epochs=1).run()


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn hearts, their images, and a file that is no mask."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(1)
    for i in range(N):
        mask = draw(rng)
        image = (100 * (mask % 2) + rng.normal(100, 5, mask.shape)).astype(np.float32)
        for kind, array in (("masks", mask), ("images", image)):
            path = folder / kind / f"s{i % 7}" / f"{i:02}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag((*SPACING_MM, 1))), path)
    (folder / "masks" / "broken.nii.gz").write_bytes(b"no")
    return folder


def names_in(out: Path) -> Counter[str]:
    return Counter(json.loads(line)["name"] for line in (out / "scores.jsonl").read_text().splitlines())


def test_the_table_is_that_of_one_process_though_a_worker_is_killed(
    monitor: Monitor, masks: Path, tmp_path: Path
) -> None:
    def run(out: Path, cluster: Cluster | None) -> None:
        opened = ScoringRun.open(monitor, masks / "masks", out, images=masks / "images")
        opened.run(0, cluster, 1)

    run(tmp_path / "one", None)
    two = tmp_path / "two"
    with one_killed_after(two / "scores.jsonl") as killed:
        run(two, Cluster(workers=2))
    assert killed
    assert (two / "scores.csv").read_bytes() == (tmp_path / "one" / "scores.csv").read_bytes()
    assert set(names_in(two).values()) == {1} and len(names_in(two)) == N + 1
    assert not list(two.rglob("*.partial"))

    # gone on with: half of the journal is lost, and nothing else is done again
    journal = two / "scores.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:N]))
    left = ScoringRun.open(monitor, masks / "masks", two, images=masks / "images").run(
        0, Cluster(workers=1), 1
    )
    assert left.summary["cases_in_this_run"] == 1
    assert (two / "scores.csv").read_bytes() == (tmp_path / "one" / "scores.csv").read_bytes()


def test_a_worker_that_sees_another_monitor_refuses(monitor: Monitor, tmp_path: Path) -> None:
    shutil.copytree(monitor.run, tmp_path / "monitor")
    job = {"monitor": str(tmp_path / "monitor"), "monitor_sha256": monitor_sha256(monitor.run), "devices": 1}
    description = tmp_path / "monitor" / DESCRIPTION
    description.write_text(description.read_text() + "\n")
    with pytest.raises(ValueError, match="another monitor found by a worker, expected the same files"):
        work(job | {"model": None, "expected": {}}, [])
