"""The model card, README.md of a model's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcjax.config import to_json
from qcjax.config.segmentation import EFFORTS
from qcjax.runtime.files import write_whole
from qcjax.segmentation.heartbeats import heartbeat_table

SIZES = ("folds", "epochs", "cycles", "width", "size", "patch", "spacing_mm")  # that the command line takes
TEMPLATE = """\
# A qcjax model: {structures}

{networks} 2-D U-Nets (nnU-Net's architecture, {width} channels in the first stage, {stages} stages), whose mean
probabilities make the mask, and an autoencoder of masks that judges it without ground truth.

{licence}## Use

```shell
qcjax segment --model MODEL --images DIR --out OUT
```

```python
import qcjax

model = qcjax.load("MODEL")
result = model.segment(image, spacing_mm)  # image: (x, y, slices)
result.labels, result.measures, result.flags
```

Labels in the masks: {labels}.

## Data

{subjects} subjects, {cases} labelled images, {slices} slices; layout {layout}.
Diseases: {diseases}. Sites or vendors: {sites}.

## Measures on subjects that a network hadn't seen

Cross-validation by patient, {networks} folds: each network judged on its own fold's subjects. Means over
cases with 95 % intervals by bootstrap over subjects. A new image is segmented by the mean of all networks.

| | Dice | HD (mm) | HD95 (mm) | HD undefined | volume, bias [limits of agreement] (ml) |
| --- | --- | --- | --- | --- | --- |
{measures}

{heartbeats}The last epoch's mean weights are the model: nothing was chosen by these subjects. The monitor has seen the
true masks of all folds but the first.

## How it was trained

Images at {spacing_mm:g} mm in plane, {size} x {size} pixels around the image's middle, z-scored; patches of
{patch} pixels, mirrored (p {mirror:g} for each axis), turned by up to ±{rotation_deg:g} degrees,
scaled{intensity}. Soft Dice and cross-entropy with deep supervision, Adam, {epochs} epochs of batches of
{batch}, learning rate {learning_rate:g} falling to 0 ({cycles} times), exponential mean of the weights. Of
each structure only the largest piece is kept{pieces}.

```shell
{command}
```

{slices_kept}## Limits

For research only; no medical device. It segments what its training data show: images of other kinds, views,
contrasts or diseases may come out wrong, and not every wrong mask is flagged. What lies beyond {extent:.0f} mm
around the image's middle isn't looked at. Another centre's contouring convention can't be seen by the flags.

Made with qcjax {version}.
"""


SLICES_KEPT = """\
## Images of patients

`training_slices.safetensors` holds the prepared slices of all training images with their masks, without names, dates or
order of subjects, for `qcjax refine`. They still are patients' images: hand this folder on only where you may hand on
the data, or delete that file first; `qcjax segment` doesn't need it.

"""


def write_card(path: Path, description: Mapping[str, Any]) -> None:
    """Write the card of a model from its description; it names no subject and no path."""
    trained, options = description["trained"], description["trained"]["options"]
    network, pieces = description["network"], description["in_pieces"]
    licence = description.get("licence")
    write_whole(
        path,
        TEMPLATE.format(
            structures=", ".join(description["labels"]),
            labels=", ".join(f"{key} = {value}" for key, value in description["labels"].items()),
            networks=description["networks"],
            width=network["width"],
            stages=network["stages"],
            licence=f"{licence}\n\n" if licence else "",
            slices_kept=SLICES_KEPT if description.get("training_slices") else "",
            **{k: trained[k] for k in ("subjects", "cases", "slices", "layout")},
            diseases=_counted(trained["diseases"]),
            sites=_counted(trained["sites"]),
            heartbeats=_heartbeats(description["heartbeats"]),
            measures="\n".join(_row(k, v) for k, v in description["cross_validated"].items()),
            **{
                k: options[k]
                for k in ("patch", "mirror", "rotation_deg", "epochs", "cycles", "batch", "learning_rate")
            },
            spacing_mm=description["spacing_mm"],
            size=description["size"],
            extent=description["spacing_mm"] * description["size"] / 2,
            intensity=", with other intensities" if options["intensity"] else "",
            pieces=f", but of {', '.join(pieces)}" if pieces else "",
            command=command_of(options, trained["layout"]),
            version=description["versions"]["qcjax"],
        ),
    )


def command_of(options: Mapping[str, Any], layout: str) -> str:
    """The command line that trains such a model."""
    data = "--images IMAGES --masks MASKS" if layout == "folders" else "--data DATA"
    text = f"qcjax train {data} --out MODEL --preset {options['preset']} --seed {options['seed']}"
    if options["licence"]:
        text += f' --licence "{options["licence"]}"'
    for name in ("may_be_absent", "in_pieces"):
        if options[name]:
            text += f" --{name.replace('_', '-')} {' '.join(options[name])}"
    preset: Mapping[str, Any] = to_json(EFFORTS[options["preset"]])
    for name in SIZES:
        if options[name] != preset[name]:
            text += f" --{name.replace('_', '-')} {options[name]}"
    epochs = options["monitor"]["autoencoder"]["epochs"]
    if epochs != preset["monitor"]["autoencoder"]["epochs"]:
        text += f" --monitor-epochs {epochs}"
    return text


def _row(key: str, found: Mapping[str, Any]) -> str:
    volume = found["volume_ml"]
    cells = [key, _number(found["dice"], 3), _number(found["hd_mm"], 1), _number(found["hd95_mm"], 1)]
    cells += [str(found["hd_mm"]["n_missing"])]
    cells += [f"{volume['bias']:+.1f} [{volume['low']:+.1f}, {volume['high']:+.1f}]"]
    return f"| {' | '.join(cells)} |"


def _heartbeats(measured: Mapping[str, Any]) -> str:
    """A table of what subjects with both phases come to; empty where there are none."""
    table = heartbeat_table(measured)
    if table is None:
        return ""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join([f"{table.caption}.", "", *(f"| {' | '.join(line)} |" for line in lines), "", ""])


def _number(cell: Mapping[str, Any], digits: int) -> str:
    if cell["mean"] is None:
        return "–"
    return f"{cell['mean']:.{digits}f} [{cell['low']:.{digits}f}, {cell['high']:.{digits}f}]"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())
