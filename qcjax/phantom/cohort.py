"""Synthetic subjects: who they are, and their images and labels in both views and phases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcjax.data.subject import PARTS, VIEWS
from qcjax.phantom.fields import Points, Wobble
from qcjax.phantom.heart import HeartShape, heart_fields, label_map
from qcjax.phantom.patient import Patient, sample_patient
from qcjax.phantom.planes import Pose, four_chamber, short_axis
from qcjax.phantom.scanner import SCANNERS, UNSEEN_SCANNER, Scanner, acquire, worsen
from qcjax.phantom.tissue import Textures, paint_heart
from qcjax.phantom.torso import TorsoShape, paint_torso

FIRST_CODES = {"train": 1, "validation": 161, "test": 201}  # of the official split
LAST_CODES = {"train": 160, "validation": 200, "test": 360}
SEEN_DISEASES = ("NOR", "LV", "HCM", "ARR", "FALL", "CIA")
TEST_DISEASES = (*SEEN_DISEASES, "RV", "TRI", "RV", "TRI")
TEST_SCANNERS = (*SCANNERS, UNSEEN_SCANNER, UNSEEN_SCANNER)
SUB_SLICES = {"SA": 3, "LA": 5}  # per slice, for partial volume


@dataclass(frozen=True)
class PhantomImage:
    """One view and phase."""

    image: np.ndarray  # (x, y, slices) int16
    label: np.ndarray  # (x, y, slices) uint8
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray  # (4, 4), voxel indices -> mm


@dataclass(frozen=True)
class PhantomSubject:
    """One synthetic subject."""

    code: int
    part: str
    patient: Patient
    scanner: Scanner
    images: Mapping[tuple[str, str], PhantomImage]  # (view, phase)

    @property
    def disease(self) -> str:
        """As in the data set's table."""
        return self.patient.disease


def part_of(code: int) -> str:
    """The part of the official split that a subject code belongs to.

    Raises:
      ValueError: a code outside 1 to 360.
    """
    for part in PARTS:
        if FIRST_CODES[part] <= code <= LAST_CODES[part]:
            return part
    raise ValueError(f"subject code {code} found, expected 1 to {LAST_CODES['test']}")


def drawn(n: int, place: int, part: str, seed: int, stream: int) -> int:
    """A number below n for the subject at a place, from 0, of a part: each comes once in every run of n places."""
    block, index = divmod(place, n)
    return int(np.random.default_rng((seed, stream, PARTS.index(part), block)).permutation(n)[index])


def drawn_disease(code: int, part: str, seed: int) -> str:
    """The disease of a subject; the part's diseases come round evenly."""
    choices = TEST_DISEASES if part == "test" else SEEN_DISEASES
    return choices[drawn(len(choices), code - FIRST_CODES[part], part, seed, 1)]


def drawn_scanner(code: int, part: str, seed: int) -> Scanner:
    """The scanner of a subject; the part's scanners come round evenly."""
    choices = TEST_SCANNERS if part == "test" else SCANNERS
    return choices[drawn(len(choices), code - FIRST_CODES[part], part, seed, 2)]


def make_subject(code: int, part: str, seed: int, matrix_scale: float = 1.0) -> PhantomSubject:
    """A synthetic subject, a function of these arguments alone.

    Args:
      code: 1 to 160 training, 161 to 200 validation, 201 to 360 test.
      part: one of "train", "validation", "test": diseases RV and TRI and one scanner are only in the last.
      matrix_scale: factor on the number of pixels along each side; the field of view stays.

    Raises:
      ValueError: a code that isn't of that part; a scale that isn't positive.
    """
    if part_of(code) != part:
        raise ValueError(f"subject code {code} found in part {part!r}, expected it in {part_of(code)!r}")
    if not matrix_scale > 0:
        raise ValueError(f"matrix_scale {matrix_scale} found, expected a positive number")
    scanner = drawn_scanner(code, part, seed)
    rng = np.random.default_rng((seed, 0, code))
    patient = sample_patient(drawn_disease(code, part, seed), rng)
    images = scan_patient(patient, scanner, rng, matrix_scale)
    return PhantomSubject(code, part, patient, scanner, images)


def scan_patient(
    patient: Patient,
    scanner: Scanner,
    rng: np.random.Generator,
    matrix_scale: float = 1.0,
    views: Sequence[str] = VIEWS,
) -> dict[tuple[str, str], PhantomImage]:
    """All phases of a patient's heart in these views, by (view, phase), on a day of the scanner."""
    scanner = worsen(scanner, float(np.exp(rng.normal(0, scanner.variation))))
    torso = TorsoShape.sample(rng)
    pose = Pose.sample(scanner.turn_deg, rng)
    body_wobble = Wobble.make(rng, 3.0, 90, 180)
    heart_wobble = Wobble.make(rng, 1.3, 34, 80)
    body_textures, heart_textures = Textures.make(rng), Textures.make(rng)
    grids = {
        "SA": short_axis(patient.shapes["ED"], pose, scanner, rng, matrix_scale),
        "LA": four_chamber(patient.shapes["ED"], pose, scanner, rng, matrix_scale),
    }
    coil = rng.normal(0, 0.35, 3) + (-0.2, 0.9, 0.0)
    coil /= np.linalg.norm(coil)
    images = {}
    for view in views:
        grid = grids[view]
        world = grid.points(SUB_SLICES[view])
        edge_mm = grid.spacing_mm[0]
        body = paint_torso(torso, body_wobble, tuple(world), body_textures, scanner.contrast, edge_mm)
        heart = pose.to_heart(world)
        near = _near(patient.shapes["ED"], heart)
        inside: Points = (heart[0][near], heart[1][near], heart[2][near])
        grain = heart_textures(inside)
        for phase, shape in patient.shapes.items():
            fields = heart_fields(shape, heart_wobble, inside)
            painted = body[near]
            paint_heart(
                painted, fields, grain, scanner.contrast,
                fat_mm=shape.fat, trabeculae=patient.trabeculae, edge_mm=edge_mm,
            )  # fmt: skip
            signal = body.copy()
            signal[near] = painted
            label = np.zeros(signal.shape, np.uint8)
            label[near] = label_map(fields)
            image = acquire(signal.mean(0), grid, scanner, rng, coil)
            centre = label[SUB_SLICES[view] // 2]
            images[view, phase] = PhantomImage(image, centre, grid.spacing_mm, grid.affine)
    return images


def _near(shape: HeartShape, heart: np.ndarray) -> np.ndarray:
    """Where the heart may be: a box of the heart frame, with the atria and the great vessels."""
    u, v, w = heart
    outer = shape.lv_radius + max(shape.wall, shape.septum)
    side = outer + shape.rv_width + 22
    across = max(outer, shape.rv_height) + 18
    return (
        (u > -side) & (u < outer + 22) & (v > -105) & (v < across + 12) & (w > -95) & (w < shape.lv_apex + 24)
    )
