"""Runs the authors' PyTorch code on formulas and writes what it gives: the golden files of the parity tests.

    python -m tests.parity.make_golden --mnms2 CLONE --quality-control CLONE [--out DIR]

CLONE is a clone of github.com/robustml-eurecom/MnMs2 and of robustml-eurecom/quality_control_CMR. Needs torch,
pandas, scikit-image, batchgenerators (0.25), nibabel, matplotlib and medpy, but not JAX. With `--check` nothing is
written: the results are compared with the files that are there.
"""

import argparse
import contextlib
import io
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from tests.parity import golden_data, golden_losses, golden_networks
from tests.parity.golden import FOLDER
from tests.parity.originals import Originals

# three steps of Adam, which enlarge what is rounding in a gradient, differ by 1e-3 on another CPU
LIMIT = 5e-3
PACKAGES = ("torch", "numpy", "scikit-image", "batchgenerators", "medpy")
MAKERS = {
    "losses": golden_losses.losses,
    "targets": golden_losses.targets,
    "learning_rates": golden_losses.learning_rates,
    "optimisers": golden_losses.optimisers,
    "preprocessing": golden_data.preprocessing,
    "metrics": golden_data.metrics,
    "decisions": golden_data.decisions,
    "autoencoder": golden_networks.autoencoder,
    "acdc_unet": lambda originals: golden_networks.segmenter(originals, "acdc_unet"),
    "nnunet": lambda originals: golden_networks.segmenter(originals, "nnunet"),
}


def main() -> int:
    """Makes or checks the files that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnms2", type=Path, required=True, help="clone of robustml-eurecom/MnMs2")
    parser.add_argument(
        "--quality-control", type=Path, required=True, help="clone of robustml-eurecom/quality_control_CMR"
    )
    parser.add_argument(
        "--out", type=Path, default=FOLDER, help="folder of the golden files (default: %(default)s)"
    )
    parser.add_argument("--only", choices=MAKERS, nargs="+", default=list(MAKERS), help="some of the files")
    parser.add_argument(
        "--check", action="store_true", help="compare with the files in --out instead of writing"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    originals = Originals(options.mnms2, options.quality_control)
    options.out.mkdir(parents=True, exist_ok=True)
    worst = 0.0
    for name in options.only:
        with contextlib.redirect_stdout(io.StringIO()):  # the authors' routines print as they train
            made = MAKERS[name](originals)
        path = options.out / f"{name}.npz"
        if options.check:
            with np.load(path) as file:
                deviation = differences(made, dict(file))
            worst = max(worst, deviation)
            print(f"{path}: differs by {deviation:.1e}")
        else:
            versions = " ".join(f"{p} {version(p)}" for p in PACKAGES)
            made["made_with"] = np.array(f"Python {platform.python_version()} {versions}")
            np.savez_compressed(path, **made)
            print(f"{path}: {len(made)} arrays, {path.stat().st_size / 1000:.0f} kB")
    return int(worst > LIMIT)


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest difference relative to each array's largest element; 1 where anything isn't the same kind."""
    expected = {k: v for k, v in expected.items() if k != "made_with"}
    if set(found) != set(expected):
        return 1.0
    worst = 0.0
    for key, array in found.items():
        other = expected[key]
        if array.shape != other.shape or array.dtype.kind != other.dtype.kind:
            return 1.0
        if array.dtype.kind != "f":
            worst = max(worst, float((array != other).any()))
        elif not (np.isfinite(array) == np.isfinite(other)).all():
            return 1.0
        else:
            finite = np.isfinite(array)
            scale = max(np.abs(other[finite]).max(initial=0), 1e-30)
            worst = max(worst, float(np.abs(array[finite] - other[finite]).max(initial=0) / scale))
    return worst


if __name__ == "__main__":
    sys.exit(main())
