"""The page of scored masks: flagged cases first, their pictures from the files, and what it does without them."""

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel
import numpy as np
import pytest
from PIL import Image

from qcjax.data.geometry import Orientation
from qcjax.labels import structures_named
from qcjax.report.pictures import draw_inconsistency
from qcjax.scoring import page as scores_page
from qcjax.scoring import views
from qcjax.scoring.score import ScoringRun
from tests.browser import browser, check_widths, page
from tests.fake_monitor import SHAPE, FakeMonitor, draw_mask, save_mask

PINK = """() => {
    const c = document.querySelector("canvas"), all = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    let found = 0;
    for (let i = 0; i < all.length; i += 4) found += all[i] === 255 && all[i + 1] === 59 && all[i + 2] === 212;
    return found;
}"""


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
    scoring = ScoringRun.open(monitor, folder / "masks", folder / "out", images=pictured)  # type: ignore[arg-type]
    scores = scoring.run(pictures=n)
    return (scores.folder / "report.html").read_text(encoding="utf-8")


def words(html: str) -> str:
    html = re.sub(r"<script.*?</script>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def viewed(html: str) -> list[dict[str, Any]]:
    """The cases as the viewer has them."""
    data = re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    return json.loads(data[1])["cases"]


def pictured(html: str) -> list[str]:
    return [case["name"] for case in viewed(html) if case["tiles"]]


def test_the_most_doubtful_come_first(folder: Path) -> None:
    html = make_page(folder)
    cases = viewed(html)
    assert [c["name"] for c in cases] == [
        "in/lost",
        "none",
        "in/more_gt",
        "in/doubted",
        "in/sound",
        "<b>broken",
    ]
    verdicts = ["erroneous", "erroneous", "suspicious", "suspicious", "", "not scored"]
    assert [c["verdict"] for c in cases] == verdicts
    assert html.index('id="viewer"') < html.index('id="findings"') < html.index('id="errors"')
    text = words(html)
    assert "2 erroneous, 2 suspicious, 1 without a flag, 1 not scored: the most doubtful come first." in text
    assert "6 masks: 5 scored, 1 could not be." in text
    assert "Right ventricular cavity is absent from the mask or from its reconstruction" in cases[0]["text"]
    assert "pseudo Dice 0.15 is below 0.5" in cases[2]["text"] and cases[0]["values"][0] == "∞"
    assert cases[4]["text"] == "Nothing is flagged." and "found no gzip data" in cases[5]["text"]


def test_pictures_are_within_the_page_and_begin_at_the_worst_slice(folder: Path) -> None:
    html = make_page(folder)
    cases = viewed(html)
    assert pictured(html) == ["in/lost", "none", "in/more_gt", "in/doubted", "in/sound"]
    for case in cases[:5]:
        kind, _, data = case["tiles"]["labels"].partition(",")
        assert kind == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")
        assert case["tiles"]["layers"] == ["mask", "reconstruction"] and case["tiles"]["slices"] == 3
    assert [bool(case["tiles"]["image"]) for case in cases[:5]] == [True, False, True, False, True]
    assert cases[0]["tiles"]["start"] == 0
    assert "no image of this name was found" in cases[1]["text"]
    assert "The image can't be shown" in cases[3]["text"] and "found shape (4, 4, 4)" in cases[3]["text"]
    assert "http" not in re.sub(r"data:[^\"]*|http://www.w3.org/2000/svg", "", html) and "{{" not in html
    assert "<dt>Doubt</dt>" in html and "2 masks had no image that fits" in words(html)


def test_the_slice_is_numbered_as_in_the_file(folder: Path) -> None:
    """A monitor that learnt from files of the other direction turns the slices; the page doesn't."""
    mask = draw_mask(18)
    mask[18:30, 26:34, :2] = 0
    mask[29:41, 26:34, 0] = 3  # doubted in the file's first slice
    save_mask(folder / "masks" / "turned.nii.gz", mask)
    upwards = nibabel.load(folder / "masks" / "turned.nii.gz")
    monitor = FakeMonitor(folder / "monitor")
    axes = upwards.affine[:3, :3].copy()
    axes[:, 2] *= -1
    monitor.orientation = Orientation(axes / np.linalg.norm(axes, axis=0))
    ScoringRun.open(monitor, folder / "masks", folder / "out").run(9)  # type: ignore[arg-type]
    (case,) = [c for c in viewed((folder / "out" / "report.html").read_text()) if c["name"] == "turned"]
    assert case["tiles"]["start"] == 0 and case["measures"][2][4] == "1"
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(case["tiles"]["labels"].partition(",")[2]))))
    width = case["tiles"]["width"]
    assert [(sheet[:, n * width : (n + 1) * width, 0] == 3).sum() for n in range(3)] == [96, 0, 96]


def test_only_so_many_are_pictured_and_the_others_are_listed(folder: Path) -> None:
    html = make_page(folder, n=1)
    assert pictured(html) == ["in/lost"] and len(viewed(html)) == 6
    assert "further down the list" in viewed(html)[1]["unseen"]
    assert pictured(make_page(folder, n=0)) == []


def test_pictures_take_no_more_memory_than_their_number_asks_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = views.read_labels
    monkeypatch.setattr(
        views, "read_labels", lambda path, *a, **k: (read.append(path.name), whole(path, *a, **k))[1]
    )
    make_page(folder, n=2)
    assert len(read) == 4  # two masks, two reconstructions


def test_without_images_the_masks_alone_are_drawn(folder: Path) -> None:
    html = make_page(folder, images=False)
    assert not any(case["tiles"]["image"] for case in viewed(html)[:5])
    assert "image of this name" not in html and "<dt>Doubt</dt>" not in html


def test_errors_are_listed_and_names_are_text(folder: Path) -> None:
    html = make_page(folder, n=0)
    assert "&lt;b&gt;broken" in html and "<b>broken" not in html
    assert "found no gzip data" in html


def test_many_cases_are_left_to_the_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_page, "MAX_ROWS", 2)
    html = make_page(folder, n=0)
    assert len(viewed(html)) == 2 and "4 more are in scores.csv." in html
    assert len(viewed(make_page(folder, n=3))) == 3  # what is pictured is listed


def test_a_mask_that_was_moved_has_no_picture(folder: Path) -> None:
    make_page(folder, n=0)
    (folder / "out" / "maps" / "in" / "lost_reconstruction.nii.gz").write_bytes(b"no")
    html = make_page(folder, n=1)
    assert pictured(html) == []
    assert "lost_reconstruction.nii.gz: found no gzip data" in viewed(html)[0]["unseen"]


def test_what_a_browser_shows_of_it(folder: Path) -> None:
    """The page as the command writes it: scrolled, clicked, sorted, filtered, decided upon, on three screens."""
    html = make_page(folder)
    path = folder / "out" / "report.html"
    volume = 12 * 8 * 3 * 1.5 * 1.5 * 8 / 1000
    assert viewed(html)[0]["measures"][2][:2] == ["RV", f"{volume:.1f}"]
    with browser() as started:
        with page(started, accept_downloads=True) as shown:
            shown.goto(path.as_uri())
            shown.wait_for_function(
                "document.querySelector('[data-part=place]').textContent == 'slice 1 of 3'"
            )
            assert shown.inner_text("[data-part=name]") == "in/lost"
            assert shown.inner_text("[data-part=verdict]") == "erroneous"
            assert "absent" in shown.inner_text("[data-part=text]")
            shown.hover("canvas")
            shown.mouse.wheel(0, 60)
            shown.wait_for_function(
                "document.querySelector('[data-part=place]').textContent == 'slice 2 of 3'"
            )
            assert shown.evaluate(PINK) == 0
            shown.check("[data-layer=differ]")
            assert shown.evaluate(PINK) == 12 * 8  # all of the RV was lost
            plots = shown.locator("[data-part=cohort] svg")
            assert plots.count() == 5  # suspicion, doubt, three volumes
            assert f"RV (ml): this case has {volume:.2f};" in plots.nth(4).get_attribute("aria-label")
            shown.click("thead >> text=case")
            shown.fill("[data-part=filter]", "in/")
            rows = shown.locator("tbody[data-part=rows] th").all_inner_texts()
            assert rows == ["in/doubted", "in/lost", "in/more_gt", "in/sound"]
            shown.click("tbody >> text=in/sound")
            assert shown.inner_text("[data-part=verdict]") == "no flag"
            shown.click("[data-decision=accept]")
            with shown.expect_download() as download:
                shown.click("[data-part=save]")
            download.value.save_as(folder / "review.csv")
            assert '"in/sound","","accept",""' in (folder / "review.csv").read_text()
        check_widths(started, path)


def test_any_structures_have_their_names_and_colours(folder: Path) -> None:
    for path in (folder / "masks").rglob("*.nii.gz"):
        if path.stat().st_size > 10:
            save_mask(path, draw_mask(28))
    html = make_page(folder, ("liver", "spleen", "tumour"), n=1)
    assert "Tumour: pseudo Dice 0.29 is below 0.5" in viewed(html)[0]["text"]
    assert "TUMOUR" in html and "ventric" not in html.split("glossary")[0]


def test_no_flag_is_told_and_the_mask_shown_all_the_same(tmp_path: Path) -> None:
    save_mask(tmp_path / "masks" / "a.nii.gz", draw_mask())
    html = make_page(tmp_path, images=False)
    assert pictured(html) == ["a"]
    assert "0 erroneous, 0 suspicious, 1 without a flag" in words(html)
    assert "Every mask could be read and scored." in words(html)


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
