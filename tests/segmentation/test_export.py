"""Exported networks: what they give without qcjax, what is written beside them, and ONNX in its own runtime."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import qcjax
from qcjax.data.subject import Volume
from qcjax.segmentation import export
from qcjax.segmentation.export import autoencoder_of, export_model, segmenter_of
from qcjax.segmentation.model import Model

ALONE = """
import sys, numpy as np
from jax import export
def run(name, given):
    return export.deserialize(bytearray(open(f"{sys.argv[1]}/{name}.stablehlo", "rb").read())).call(given)
slices, masks = (np.load(f"{sys.argv[1]}/{name}.npy") for name in ("slices", "masks"))
np.save(sys.argv[1] + "/segmented.npy", run("segmenter", slices))
np.save(sys.argv[1] + "/rebuilt.npy", run("autoencoder", masks))
assert not any(name.startswith(("qcjax", "flax")) for name in sys.modules)
"""


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return qcjax.load(model_folder, 1)


@pytest.fixture(scope="module")
def volume() -> Volume:
    array = np.random.default_rng(0).normal(100, 20, (40, 48, 3)).astype(np.float32)
    return Volume(array, (3.6, 3.6, 8.0), np.eye(4), Path("drawn"))


def masks_of(model: Model, n: int) -> np.ndarray:
    """One-hot masks of boxes."""
    size, k = model.monitor.size, 1 + len(model.structures)
    labels = np.zeros((n, size, size), int)
    labels[:, 20:40, 20:40], labels[:, 25:35, 25:35], labels[:, 20:40, 8:20] = 2, 1, 3
    return np.eye(k, dtype=np.float32)[labels]


def test_stablehlo_runs_with_jax_alone_and_gives_what_the_model_gives(
    model: Model, volume: Volume, tmp_path: Path
) -> None:
    files = export_model(model, tmp_path, "stablehlo")
    assert [f.name for f in files] == ["segmenter.stablehlo", "autoencoder.stablehlo", "export.json"]
    prepared = model.prepare(volume)
    masks = masks_of(model, 2)
    np.save(tmp_path / "slices.npy", prepared.stack[..., None])
    np.save(tmp_path / "masks.npy", masks)
    subprocess.run([sys.executable, "-I", "-c", ALONE, str(tmp_path)], check=True, timeout=300)
    segmented, rebuilt = (np.load(tmp_path / f"{name}.npy") for name in ("segmented", "rebuilt"))
    # the model keeps float16
    np.testing.assert_allclose(segmented, model.predict([prepared])[0].probabilities, atol=1e-3)
    ours = model.monitor._rebuild_slices(masks.argmax(-1).astype(np.uint8))
    np.testing.assert_array_equal(rebuilt.argmax(-1), ours)


def test_the_description_says_what_goes_in_and_out(model: Model, tmp_path: Path) -> None:
    export_model(model, tmp_path, "stablehlo")
    found = json.loads((tmp_path / "export.json").read_text())
    part = found["segmenter"]
    assert part["input"] == {
        "shape": ["n", 64, 64, 1],
        "type": "float32",
        "axes": "slices, rows (y), columns (x), 1",
    }
    assert part["classes"] == ["background", "lv", "myo", "rv"] and part["output"]["shape"] == [
        "n",
        64,
        64,
        4,
    ]
    assert part["pixel_mm"] == model.spacing_mm and "3.6 mm" in " ".join(part["preparation"])
    assert found["labels"] == {"background": 0, "lv": 3, "myo": 2, "rv": 1}
    for name in ("segmenter", "autoencoder"):
        assert (tmp_path / found[name]["file"]).is_file()


def test_onnx_without_its_converter_says_what_is_missing(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(
        ValueError, match="--to onnx: .*jax2onnx.*expected what docs/segmentation.md installs"
    ):
        export_model(model, tmp_path, "onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")  # jax2onnx's own
def test_onnx_gives_what_jax_gives(model: Model, tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx", reason="jax2onnx isn't installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx isn't installed")
    export_model(model, tmp_path, "onnx")
    slices = np.random.default_rng(1).normal(0, 1, (3, model.size, model.size, 1)).astype(np.float32)
    for name, function, given in (
        (export.SEGMENTER, segmenter_of(model), slices),
        (export.AUTOENCODER, autoencoder_of(model.monitor), masks_of(model, 2)),
    ):
        session = runtime.InferenceSession(str(tmp_path / f"{name}.onnx"))
        (found,) = session.run(None, {session.get_inputs()[0].name: given})
        np.testing.assert_allclose(found, np.asarray(jax.jit(function)(given)), atol=1e-4)
