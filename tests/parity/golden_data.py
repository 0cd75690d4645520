"""The authors' preprocessing, metrics and decisions on formulas."""

from typing import Any

import numpy as np

from tests.parity import formulas as f
from tests.parity import originals as o

Golden = dict[str, np.ndarray]


def preprocessing(originals: o.Originals) -> Golden:
    """Volumes prepared as the loader hands them out, and predictions on their way back."""
    u, golden = originals.utils, {}
    for name, (_, spacing, _, size, target) in f.VOLUMES.items():
        image, label = (a.astype(np.float64) for a in f.volume(name))
        crop = u.crop_image(image)
        spacing = np.array(spacing[::-1], np.float32)  # as a NIfTI header has it
        steps = (u.AddPadding((size, size)), u.CenterCrop((size, size)))
        for kind, array in (("image", image), ("labels", label)):
            prepared = u.preprocess_image(name, array, crop, kind == "labels", spacing, [10.0, *target])
            slices = []
            for one in prepared.astype(np.float32):
                sample = {"data": one}
                for step in steps:
                    sample = step(sample)
                slices.append(sample["data"])
            golden[f"{name}/{kind}"] = np.stack(slices).astype(np.float32 if kind == "image" else np.uint8)
        if spacing[1] == spacing[2]:  # otherwise the authors' way back takes the spacing of the other axis
            golden[f"{name}/restored"] = _restored(originals, name, golden[f"{name}/labels"], crop, spacing)
        golden[f"{name}/image"] = f.sampled(golden[f"{name}/image"], f.OUTPUT_SAMPLES)
    return golden


def _restored(
    originals: o.Originals, name: str, labels: np.ndarray, crop: Any, spacing: np.ndarray
) -> np.ndarray:
    """A prediction on the grid of the input."""
    prediction = np.moveaxis(f.predictions(f"prediction {name}", labels), -1, 1)
    info = {"shape_ED": f.VOLUMES[name][0], "crop_ED": crop, "spacing": spacing}
    restored = originals.utils.postprocess_image(
        prediction, info, "ED", np.array([10.0, *f.VOLUMES[name][4]])
    )
    return restored.astype(np.uint8)


def metrics(originals: o.Originals) -> Golden:
    """Dice and Hausdorff distance in voxels of LV, MYO, RV (medpy's)."""
    model, golden = originals.nnunet(), {}
    for name in f.METRIC_CASES:
        first, second = f.metric_case(name)
        found = model.Metrics(first, second)
        for measure in ("dc", "hd"):
            golden[f"{name}/{measure}"] = np.array(
                [found[f"{s}_{measure}"] for s in ("LV", "MYO", "RV")], float
            )
    return golden


def decisions(originals: o.Originals) -> Golden:
    """Thresholds, out-of-distribution cases and chosen predictions after every evaluation of scripted histories.

    A prediction is the number of the evaluation that made it, so what is chosen tells where it came from.
    """
    golden: dict[str, list[Any]] = {}
    for name, (evaluations, cases, _) in f.HISTORIES.items():
        validator = originals.utils.Validator(m_best=5)
        scripts = {phase: f.history(name, phase) for phase in ("ED", "ES")}
        metrics = validator.pseudo_metrics["ulab"] = {}
        with np.errstate(invalid="ignore"):
            for evaluation in range(evaluations):
                for case in range(cases):
                    record = metrics.setdefault(case, {p: {"RV_dc": [], "RV_hd": []} for p in scripts})
                    for phase, (pdc, phd) in scripts.items():
                        record[phase]["RV_dc"].append(pdc[evaluation, case])
                        record[phase]["RV_hd"].append(phd[evaluation, case])
                    prediction = dict.fromkeys(scripts, np.array(float(evaluation)))
                    validator.update_best_predictions("ulab", case, prediction, record)
                found = validator.get_anomalies("ulab")
                for phase in scripts:
                    key = f"{name}/{phase}"
                    low = validator.get_thrs("ulab", phase, "RV_dc")[0]
                    up = validator.get_thrs("ulab", phase, "RV_hd")[1]
                    golden.setdefault(f"{key}/thresholds", []).append((low, up))
                    golden.setdefault(f"{key}/ood", []).append(
                        [case in found[phase] for case in range(cases)]
                    )
                    best = [validator.best_predictions["ulab"][case][phase] for case in range(cases)]
                    kept = [
                        [-1 if b[k] is None else int(b[k]) for k in ("RV_dc", "RV_hd", "ensemble")]
                        for b in best
                    ]
                    golden.setdefault(f"{key}/kept", []).append(kept)
                    chosen = [
                        float(validator.get_best_prediction("ulab", case)[phase]) for case in range(cases)
                    ]
                    golden.setdefault(f"{key}/chosen", []).append(chosen)
    return {k: np.array(v) for k, v in golden.items()}
