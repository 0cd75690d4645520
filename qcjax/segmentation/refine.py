"""`qcjax refine`: a model adapted to unlabelled images, which keeps its own networks and says per case which to use."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from qcjax.config import to_json
from qcjax.config.adaptation import AdaptationConfig
from qcjax.config.segmentation import EFFORTS, SegmentationConfig
from qcjax.data.batches import Slices
from qcjax.data.placement import place
from qcjax.quality.model import FILE as QUALITY
from qcjax.runtime import jax_setup
from qcjax.runtime.arrays import write_arrays
from qcjax.runtime.files import write_whole
from qcjax.runtime.folder import open_folder
from qcjax.runtime.progress import say
from qcjax.runtime.records import kept_record
from qcjax.runtime.wording import count_of
from qcjax.segmentation.dataset import find_labelled, prepare_checked
from qcjax.segmentation.fold import Recipe
from qcjax.segmentation.inputs import find_images
from qcjax.segmentation.model import DESCRIPTION, REFINED, WEIGHTS, Model
from qcjax.segmentation.refined_cases import Compared, compare, write_compared
from qcjax.segmentation.refined_page import write_refined_page
from qcjax.segmentation.refining import Limits, RefinedNetwork, Refinement, describe
from qcjax.segmentation.run import HELD_OUT, WORK
from qcjax.segmentation.training_slices import FILE as SLICES
from qcjax.segmentation.training_slices import read_training_slices
from qcjax.segmentation.unlabelled import read_unlabelled, same_images
from qcjax.segmentation.weights import packed_weights, read_weights
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.journal import Journal
from qcjax.train.loop import fit
from qcjax.typing import Variables

REFINEMENT = "refinement"  # folder within the model's: what is needed to go on, and can be deleted afterwards
CASES = "cases.csv"
CARD = """\
## Adapted

Refined (refinement paper: Galati and Zuluaga, STACOM 2021) on {images} unlabelled images, {cases} still images or
frames of cines, of which {learnt} were learnt from: {why}. Beside them stood {labelled} labelled slices, {source}.
{epochs} passes at the most of {steps} steps, learning rate {rate:g}; started from the model described here, whose
measures on unseen subjects hold for its own networks, not for the refined ones.

Both sets of networks are in this folder. `qcjax segment` takes an image's refined mask where the predicted Dice, mean
over the structures, is higher by more than {gain:g} and no structure's falls by more; else its source's. Of the images
of the adaptation that are {accepted} of {compared}. Predicted quality has been learnt from masks of the source, and
refinement trains the very agreement with the monitor that is one of its signals: calibrate it where you have labels
(`qcjax calibrate`).

"""


class Adaptation:
    """One run of `qcjax refine`."""

    def __init__(self, model: Model, config: AdaptationConfig) -> None:
        """Opens the folder and finds the data; no image is read.

        Raises:
          FileNotFoundError: no such folder.
          ValueError: a model that can't be refined, no labelled data, no images, or a folder of another run.
        """
        self.model, self.config, self.out = model, config, config.out
        self.work = config.out / REFINEMENT
        _check(model)
        if config.out.resolve() == model.folder.resolve():
            raise ValueError(f"{config.out}: found the model itself as --out; expected another folder")
        self.training = training_options(model)
        self.images, left_out = find_images(config.images, config.out)
        self.buffer = _labelled_source(model, config)
        if left_out:
            say(f"{config.images}: left out: {left_out}")
        open_folder(config, self.work)
        now = same_images(self.images)
        if kept_record(self.work / "images.json", lambda: now) != now:
            raise ValueError(
                f"{config.images}: other images found than when refinement began; expected the same, or a new --out"
            )

    def run(self) -> list[Compared]:
        """Refine what isn't refined yet, compare the masks, and write the model; what became of each image."""
        model, config = self.model, self.config
        labelled, cohort = self.labelled(), read_unlabelled(model, self.images)
        recipe = Recipe(replace(self.training, patch=model.size), model.structures, model.devices)
        unlabelled = Slices(cohort.slices, np.zeros(cohort.slices.shape, np.uint8))
        data = place([labelled, unlabelled], model.devices, "auto", "Slices")
        shared = Refinement(model, recipe, config, data, labelled, cohort)
        sources = read_weights(model.folder / WEIGHTS, model.description)
        measured = [shared.measure(model.devices.replicate(w)) for w in sources]
        known = (model.quality.reference if model.quality else {}).get("pdc", {})
        by_place = {i: known[s.key] for i, s in enumerate(model.structures) if s.key in known}
        limits = Limits.of(measured, shared.needed, by_place)
        ood = limits.outside(measured)
        cases = ood if config.cases == "ood" else np.ones_like(ood)
        if not cases.any():
            raise ValueError(
                f"{config.images}: found no image out of distribution, expected some to learn from: the model fits "
                "these images as it is (--cases all: learn from all of them)"
            )
        say(
            f"{count_of(int(ood.sum()), 'case')} of {len(ood)} out of distribution, learnt from: {int(cases.sum())}; "
            f"{len(sources)} networks, {config.epochs} passes of {config.steps} steps at the most"
        )
        before = [
            describe(shared, m, cases) | self.watched(shared, w)
            for m, w in zip(measured, sources, strict=True)
        ]
        journal = Journal(self.work / "metrics.jsonl")
        refined = []
        for number, weights in enumerate(sources, start=1):
            checkpoints = Checkpoints(
                self.work / "checkpoints" / f"refined_{number}", f"refined_{number}", m_best=1
            )
            bound = limits if config.cases == "ood" else None
            stage = RefinedNetwork(shared, number, weights, bound, cases, checkpoints)
            state = fit(stage, journal, checkpoints, model.devices)
            checkpoints.close()
            refined.append(jax.tree.map(np.asarray, model.devices.unreplicate(state.model)))
        names = {n for n, chosen in zip(cohort.names, cases, strict=True) if chosen}
        self.write(refined, len(labelled.image), len(cohort.names), len(names))
        both = Model.load(self.out, config.devices)
        outside = {n for n, is_ood in zip(cohort.names, ood, strict=True) if is_ood}
        found = compare(both, self.images, outside, cohort.refused)
        write_compared(self.out / CASES, found)
        self.tell(found)
        write_refined_page(self.out / "report.html", both, found, journal.read(), before)
        return found

    def watched(self, shared: Refinement, weights: Variables) -> dict[str, float]:
        """Dice on labelled slices before refinement."""
        return shared.watched(self.model.devices.replicate(weights))

    def labelled(self) -> Slices:
        """The labelled slices that are learnt from beside the images."""
        if self.buffer is not None:
            return self.buffer
        config, model = self.config, self.model
        given = replace(
            self.training,
            data=config.data,
            layout=config.layout,
            images=config.labelled_images,
            masks=config.labelled_masks,
            labels=None if config.data else ",".join(f"{k}={v}" for k, v in model.labels.items()),
            folds=2,
        )
        found = find_labelled(given)
        if set(found.labels) != set(model.labels):
            raise ValueError(
                f"the labelled data have {', '.join(found.labels)}; expected the model's {', '.join(model.labels)}"
            )
        ordered = replace(found, labels={key: found.labels[key] for key in model.labels})
        return prepare_checked(ordered, given, model.orientation).slices

    def write(self, refined: Sequence[Variables], labelled: int, cases: int, learnt: int) -> None:
        """The model's own files, the refined networks beside them, and a description that tells of both."""
        self.out.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns(WORK, HELD_OUT, SLICES, "report.html", CASES, ".*")
        shutil.copytree(self.model.folder, self.out, dirs_exist_ok=True, ignore=ignored)
        write_arrays(self.out / REFINED, packed_weights(refined))
        options = to_json(self.config)
        for name in ("images", "out", "data", "labelled_images", "labelled_masks", "devices"):
            del options[name]
        description = dict(self.model.description) | {
            "training_slices": False,
            "refined": {
                "gain": self.config.gain,
                "images": len(self.images),
                "cases": cases,
                "learnt_from": learnt,
                "labelled_slices": labelled,
                "options": options,
                "versions": jax_setup.versions(),
            },
        }
        write_whole(self.out / DESCRIPTION, json.dumps(description, indent=2) + "\n")

    def tell(self, found: Sequence[Compared]) -> None:
        """The card: the source's, and what it was adapted on."""
        description = json.loads((self.out / DESCRIPTION).read_text(encoding="utf-8"))
        made, config = description["refined"], self.config
        section = CARD.format(
            images=made["images"],
            cases=made["cases"],
            learnt=made["learnt_from"],
            why="those that the monitor finds out of distribution"
            if config.cases == "ood"
            else "all of them",
            labelled=made["labelled_slices"],
            source="which the model carried" if self.buffer is not None else "of data given again",
            epochs=config.epochs,
            steps=config.steps,
            rate=config.learning_rate_factor * self.training.learning_rate,
            gain=config.gain,
            accepted=sum(one.accepted for one in found),
            compared=sum(not one.error for one in found),
        )
        path = self.model.folder / "README.md"
        card = path.read_text(encoding="utf-8") if path.is_file() else "# A qcjax model\n\n"
        kept_until = card.find("## Images of patients")  # of slices that this model doesn't carry
        limits = card.find("## Limits")
        end = limits if limits >= 0 else len(card)
        start = kept_until if kept_until >= 0 else end
        write_whole(self.out / "README.md", card[:start] + section + card[end:])


def training_options(model: Model) -> SegmentationConfig:
    """The options that a model was trained with, as far as its description has them."""
    told: dict[str, Any] = model.description["trained"]["options"]
    names = (
        "size", "spacing_mm", "patch", "width", "max_width", "stages", "batch", "learning_rate", "average", "mirror",
        "rotation_deg", "intensity",
    )  # fmt: skip
    given = {name: told[name] for name in names if name in told}
    low, high = told["scale"]
    return replace(EFFORTS[told["preset"]], **given, scale=(low, high), devices=None)


def _check(model: Model) -> None:
    if model.bound is not None:
        raise ValueError(f"{model.folder}: a refined model found, expected the one that it came from")
    if model.quality is None:
        raise ValueError(
            f"{model.folder}: found no {QUALITY}, expected it: without predicted quality nobody could say which masks "
            "refinement has made better (qcjax train leaves it from 9 subjects on)"
        )
    monitor = model.monitor
    if (monitor.size, monitor.spacing_mm) != (model.size, model.spacing_mm):
        raise ValueError(
            f"{model.folder}: a monitor of {monitor.size} pixels of {monitor.spacing_mm:g} mm found, expected the "
            f"networks' {model.size} of {model.spacing_mm:g} mm: its reconstructions are what they learn from"
        )


def _labelled_source(model: Model, config: AdaptationConfig) -> Slices | None:
    """The slices that the model carries; None where labelled data are given, which come first."""
    folders = (config.labelled_images, config.labelled_masks)
    if config.data is None and folders == (None, None):
        found = read_training_slices(model.folder)
        if found is None:
            raise ValueError(
                f"{model.folder}: found no labelled data, expected the training data again (--data, or "
                "--labelled-images with --labelled-masks) or a model that carries "
                f"{SLICES} (qcjax train --keep-training-slices): without "
                "truth beside it, refinement drifts towards whatever the monitor rebuilds, and nothing would show it"
            )
        return found
    if (folders[0] is None) != (folders[1] is None) or (config.data is None) == (folders[0] is None):
        raise ValueError(
            "found --data and --labelled-images with --labelled-masks, or one of a pair; expected one of these"
        )
    for folder in (config.data, *folders):
        if folder is not None and not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder}: found no such folder; expected labelled data")
    return None
