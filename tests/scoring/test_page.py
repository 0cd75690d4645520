"""The page of scored masks: flagged cases first, their pictures from the files, and what it does without them."""

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from qcjax.labels import structures_named
from qcjax.report.pictures import draw_inconsistency
from qcjax.scoring import page as scores_page
from qcjax.scoring.score import Scoring
from tests.fake_monitor import SHAPE, FakeMonitor, draw_mask, save_mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two erroneous masks, two suspicious, one sound, one broken; images of some."""
    rng = np.random.default_rng(0)
    for name, rv_at in (("lost", 32), ("doubted", 28), ("more_gt", 29), ("sound", 18)):
        save_mask(tmp_path / "masks" / "in" / f"{name}.nii.gz", draw_mask(rv_at))
    save_mask(tmp_path / "masks" / "none.nii.gz", np.zeros(SHAPE, np.uint8))
    (tmp_path / "masks" / "<b>broken.nii.gz").write_bytes(b"no")
    for name in ("lost", "more", "sound"):
        blood = np.isin(draw_mask(32 if name == "lost" else 29 if name == "more" else 18), (1, 3))
        image = (100.0 * blood + rng.normal(100, 20, SHAPE)).astype(np.float32)
        save_mask(tmp_path / "images" / "in" / f"{name}.nii.gz", image)
    save_mask(tmp_path / "images" / "in" / "doubted.nii", np.ones((4, 4, 4), np.float32))
    return tmp_path


def make_page(
    folder: Path, keys: Sequence[str] = ("lv", "myo", "rv"), n: int = 40, images: bool = True
) -> str:
    monitor = FakeMonitor(folder / "monitor", keys)
    pictured = folder / "images" if images else None
    scoring = Scoring.open(monitor, folder / "masks", folder / "out", images=pictured)  # type: ignore[arg-type]
    scores = scoring.run(pictures=n)
    return (scores.folder / "report.html").read_text(encoding="utf-8")


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r'src="data:[^"]*"', "", html)))


def card_names(html: str) -> list[str]:
    return re.findall(r'<article class="card"><h3>(.*?)</h3>', html)


def test_flagged_cases_come_first_and_by_urgency(folder: Path) -> None:
    html = make_page(folder)
    assert card_names(html) == ["in/lost", "none", "in/more_gt", "in/doubted"]
    assert html.index('id="flagged"') < html.index('id="errors"') < html.index('id="cases"')
    text = words(html)
    assert "6 masks: 5 scored, 1 could not be." in text
    assert "Right ventricular cavity is absent from the mask or from its reconstruction" in text
    assert "pseudo Dice 0.15 is below 0.5" in text and "∞" in text


def test_pictures_are_within_the_page_and_name_the_slice(folder: Path) -> None:
    html = make_page(folder)
    sources = re.findall(r'<img src="data:image/png;base64,([^"]*)"', html)
    assert len(sources) == 4 and html.count("<img") == 4
    assert all(base64.b64decode(source).startswith(b"\x89PNG") for source in sources)
    assert "http" not in html and "<script" not in html and "{{" not in html
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert captions[0].startswith("Image, mask, its reconstruction and where they differ, slice 1 of 3.")
    assert captions[1].startswith("Mask, its") and "no image of this name was found" in captions[1]
    assert captions[2].startswith("Image, mask")  # more_gt has the image more
    assert "<dt>Doubt</dt>" in html and '<th scope="col">doubt</th>' in html
    assert "2 masks had no image that fits" in words(html) and "doubt 0.00" in words(html)
    assert "The image can&#39;t be shown" in captions[3] and "found shape (4, 4, 4)" in captions[3]


def test_only_so_many_are_pictured_and_the_others_are_listed(folder: Path) -> None:
    html = make_page(folder, n=1)
    assert card_names(html) == ["in/lost"]
    table = html[html.index("The other 3 flagged cases") :]
    assert table.index("none") < table.index("in/more_gt") < table.index("in/doubted")
    assert card_names(make_page(folder, n=0)) == []


def test_without_images_the_masks_alone_are_drawn(folder: Path) -> None:
    html = make_page(folder, images=False)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert len(captions) == 4 and all(caption.startswith("Mask, its") for caption in captions)
    assert "image of this name" not in html and "<dt>Doubt</dt>" not in html


def test_errors_are_listed_and_names_are_text(folder: Path) -> None:
    html = make_page(folder, n=0)
    assert "&lt;b&gt;broken" in html and "<b>broken" not in html
    assert "found no gzip data" in html


def test_many_cases_are_left_to_the_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "<caption>The most urgent first</caption>" in make_page(folder, n=0)
    monkeypatch.setattr(scores_page, "MAX_ROWS", 2)
    html = make_page(folder, n=0)
    assert "<caption>The most urgent first</caption>" not in html
    assert "There are more than 2 cases: they are in scores.csv" in html
    assert "2 more are in scores.csv" in html


def test_a_mask_that_was_moved_has_no_picture(folder: Path) -> None:
    make_page(folder, n=0)
    (folder / "out" / "maps" / "in" / "lost_reconstruction.nii.gz").write_bytes(b"no")
    html = make_page(folder, n=1)
    assert card_names(html) == ["in/lost"] and "<img" not in html
    assert "No picture" in html and "lost_reconstruction.nii.gz: found no gzip data" in html


def test_any_structures_have_their_names_and_colours(folder: Path) -> None:
    for path in (folder / "masks").rglob("*.nii.gz"):
        if path.stat().st_size > 10:
            save_mask(path, draw_mask(28))
    html = make_page(folder, ("liver", "spleen", "tumour"), n=1)
    assert (
        "Tumour: pseudo Dice 0.29 is below 0.5" in words(html)
        and "TUMOUR" in html
        and "ventric" not in html.split("glossary")[0]
    )


def test_no_flag_no_card(tmp_path: Path) -> None:
    save_mask(tmp_path / "masks" / "a.nii.gz", draw_mask())
    text = words(make_page(tmp_path, images=False))
    assert "No case is flagged." in text and "Every mask could be read and scored." in text


def test_the_settings_are_told(folder: Path) -> None:
    text = words(make_page(folder, n=0))
    settings = json.loads((folder / "out" / "score.json").read_text())
    assert settings["monitor"] in text and "lv = 1, myo = 2, rv = 3" in text


def test_any_structure_is_painted_in_its_colour(tmp_path: Path) -> None:
    structures = structures_named(["left", "right"])
    mask = np.zeros((20, 20, 1), np.uint8)
    mask[5:15, 5:10], mask[5:15, 10:15] = 1, 2
    path = draw_inconsistency(None, mask, mask, (1.0, 1.0), 0, tmp_path / "a.png", structures)
    pixels = matplotlib.image.imread(path)[..., :3].reshape(-1, 3)
    for structure in structures:
        colour = np.array([int(structure.colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        assert (np.abs(pixels - colour).max(axis=1) < 0.05).sum() > 20
