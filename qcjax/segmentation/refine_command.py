"""The subcommand `refine`; what it needs is imported when it runs."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from qcjax.runtime.exits import exit_code
from qcjax.runtime.wording import count_of


def refine(
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")],
    images: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    out: Annotated[Path, tyro.conf.arg(metavar="MODEL2")],
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    layout: Literal["auto", "acdc", "mnms2", "emidec", "nnunet"] = "auto",
    labelled_images: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    labelled_masks: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    cases: Literal["ood", "all"] = "ood",
    epochs: int = 4,
    steps: int = 40,
    learning_rate_factor: float = 0.02,
    gain: float = 0.02,
    seed: int = 0,
    devices: int | None = None,
) -> int:
    """Adapt a trained model to your own unlabelled images; `qcjax segment` then segments with what it leaves.

    Refinement (Galati and Zuluaga, STACOM 2021): the images whose masks the monitor can't rebuild are learnt from, with
    its reconstructions in place of truth, beside labelled slices: the training data again (--data), or those that the
    model carries (qcjax train --keep-training-slices). It can harm as well as help. So the model's own networks are
    kept, and for each image the refined mask is taken only where its predicted Dice is higher by more than --gain.

    Written to --out: the model with both sets of networks, a card that says what it was adapted on, cases.csv (what
    changed in each image, whether it is taken, and why), report.html; and refinement, which holds what it takes to go
    on and can be deleted in the end. Started again on the same --out, it goes on.

    Example: qcjax refine --model model --images scans --data data/ACDC --out model-here

    Args:
      model: The folder of a trained model, which isn't changed.
      images: The unlabelled images, as of qcjax segment. Of a cine two frames are learnt from, the first and that at a
        third, near ED and ES.
      out: The folder of the adapted model.
      data: The labelled data set's folder; structures as the model's.
      layout: Of --data; auto: whichever is recognised.
      labelled_images: In place of --data, a folder of images; with --labelled-masks.
      labelled_masks: Their masks, with the model's label values.
      cases: Learn from the images that are out of distribution, or from all.
      epochs: Passes over the images at the most; it ends sooner where none is out of distribution any more.
      steps: Of each pass, for each network.
      learning_rate_factor: The learning rate as a share of that of training; a too large one harms everywhere.
      gain: By how much the predicted Dice must be higher for a refined mask to be taken.
      seed: Of the order and the augmentation.
      devices: How many devices share each batch; default all.
    """
    from qcjax.config.adaptation import AdaptationConfig
    from qcjax.runtime import jax_setup
    from qcjax.segmentation.model import Model
    from qcjax.segmentation.refine import Adaptation

    def run() -> None:
        config = AdaptationConfig(
            images, out, data, layout, labelled_images, labelled_masks, cases, epochs, steps,
            learning_rate_factor=learning_rate_factor, gain=gain, seed=seed, devices=devices,
        )  # fmt: skip
        jax_setup.prepare()
        found = Adaptation(Model.load(model, devices), config).run()
        used = [case for case in found if not case.error]
        taken = sum(case.accepted for case in used)
        print(
            f"{taken} of {count_of(len(used), 'image')}: the refined mask is taken; {out / 'cases.csv'} says why"
        )
        print(f"{out}: segment images with qcjax segment --model {out}")

    return exit_code(run)
