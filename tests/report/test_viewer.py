"""The viewer: what is packed, and what a browser shows of it when it is scrolled, clicked and typed into."""

import base64
import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from PIL import Image

from qcjax.labels import CARDIAC
from qcjax.report.distribution import Distribution
from qcjax.report.tiles import pack_case
from qcjax.report.viewer import ViewedCase, viewer_data
from tests.browser import browser, page

SHAPE = (90, 70, 6)
TEMPLATE = '{% extends "base.html.j2" %}{% block opening %}{% include "viewer.html.j2" %}{% endblock %}'


def heart(shift: int = 0) -> np.ndarray:
    """LV within MYO, RV to the left of it, in five of six slices; each slice one pixel farther."""
    labels = np.zeros(SHAPE, np.uint8)
    for s in range(5):
        at = 30 + s + shift
        labels[at : at + 20, 25:45, s] = 2
        labels[at + 5 : at + 15, 30:40, s] = 1
        labels[at - 8 : at, 25:45, s] = 3
    return labels


def image() -> np.ndarray:
    return (heart() == 1) * 200.0 + np.arange(SHAPE[0])[:, None, None]


def packed(**changes: Any) -> dict[str, Any]:
    layers = {"mask": heart(), "reconstruction": heart(2)}
    return pack_case(**({"image": image(), "layers": layers, "spacing_mm": (1.5, 1.5), "start": 2} | changes))


def sheet(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_the_tiles_hold_the_labels_cut_to_the_heart() -> None:
    tiles = packed()
    # x 22 … 55 and y 25 … 44 hold something, 17 pixels are 25 mm
    assert (tiles["width"], tiles["height"]) == (73 - 5, 62 - 8)
    labels = sheet(tiles["labels"])
    for n in range(6):  # all in one row
        tile = np.swapaxes(labels[:54, n * 68 : (n + 1) * 68], 0, 1)
        for layer, shift in enumerate((0, 2)):
            np.testing.assert_array_equal(tile[..., layer], heart(shift)[5:73, 8:62, n])
    grey = sheet(tiles["image"])
    assert grey.shape == labels.shape[:2] and grey.dtype == np.uint8


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_rv_is_on_the_left_however_the_file_lies(turns: int) -> None:
    spacing = (1.5, 1.5)
    turned = {"mask": np.rot90(heart(), turns, (0, 1))}
    upright = pack_case(None, {"mask": heart()}, spacing, 2)
    assert pack_case(None, turned, spacing, 2) == upright
    stretched = pack_case(None, turned, (1.0, 2.0), 2)
    assert stretched["aspect"] == (0.5 if turns % 2 else 2.0)


def test_a_large_image_is_shown_by_fewer_pixels() -> None:
    large = np.zeros((700, 700, 1), np.uint8)
    large[10:690, 10:690] = 1
    tiles = pack_case(None, {"mask": large}, (1.0, 1.0), 0)
    assert (tiles["width"], tiles["height"]) == (140, 140) and tiles["image"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": {}}, "layers: none found"),
        ({"image": np.zeros((3, 3, 6))}, "image: shape"),
        ({"frames": 4}, "6 slices found, expected a multiple of 4 frames"),
        ({"layers": dict.fromkeys("abcd", heart())}, "layers: 4 found, expected 1 to 3"),
    ],
)
def test_what_cannot_be_packed(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        packed(**changes)


def test_numbers_that_json_lacks_are_words() -> None:
    case = ViewedCase("a", "", "", {"x": np.inf, "y": np.nan, "z": 1.5})
    (shown,) = viewer_data([case], ["x", "y", "z", "absent"])["cases"]
    assert shown["values"] == ["∞", None, 1.5, None] and shown["tiles"] is None
    json.dumps(shown, allow_nan=False)


def write(folder: Path, cases: list[ViewedCase], columns: tuple[str, ...] = ("suspicion",)) -> Path:
    context = {
        "title": "Viewer",
        "lead": "",
        "sections": (),
        "findings": (),
        "look": "A mask.",
        "plots": "Where it lies.",
        "viewer": viewer_data(
            cases,
            columns,
            CARDIAC,
            ["", "ml"],
            {"suspicion": Distribution(0.0, 4.0, (5, 1, 0, 1), 2)},
            "More are elsewhere.",
        ),
    }
    environment = jinja2.Environment(loader=jinja2.PackageLoader("qcjax.report"), autoescape=True)
    path = folder / "page.html"
    path.write_text(environment.from_string(TEMPLATE).render(context), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Three cases: one of six slices, one of two slices and three frames, one without files; names that are markup."""
    cine = packed(frames=3, start=1, start_frame=1)
    curves = {"lv": [100.0, None, 50.0]}
    return write(
        tmp_path,
        [
            ViewedCase(
                "<b>first</b>",
                "erroneous",
                "RV is absent",
                {"suspicion": 2.0},
                packed(),
                measures=[["RV", "0.0"]],
            ),
            ViewedCase("second", "suspicious", "", {"suspicion": np.inf}, cine, curves=curves),
            ViewedCase("third", "", "", {"suspicion": None}, unseen="No picture: it was moved."),
        ],
    )


def colour(shown: Any, x: int, y: int) -> list[int]:
    script = (
        f"Array.from(document.querySelector('canvas').getContext('2d').getImageData({x}, {y}, 1, 1).data)"
    )
    return shown.evaluate(script)[:3]


def place(shown: Any) -> str:
    return shown.inner_text("[data-part=place]")


def test_wheel_keys_and_sliders_change_slice_and_frame(written: Path, chromium: Any) -> None:
    with page(chromium) as shown:
        shown.goto(written.as_uri())
        shown.wait_for_function("document.querySelector('[data-part=place]').textContent")
        assert place(shown) == "slice 3 of 6" and shown.inner_text("[data-part=name]") == "<b>first</b>"
        shown.hover("canvas")
        shown.mouse.wheel(0, 100)
        shown.wait_for_function("document.querySelector('[data-part=place]').textContent == 'slice 4 of 6'")
        shown.focus("canvas")
        shown.keyboard.press("ArrowUp")
        assert place(shown) == "slice 3 of 6"
        shown.fill("[data-part=slice]", "6")
        assert place(shown) == "slice 6 of 6"
        shown.focus("canvas")
        shown.keyboard.press("ArrowDown")
        assert place(shown) == "slice 6 of 6"  # the last one stays
        assert not shown.is_visible("[data-part=frames]")
        shown.keyboard.press("n")
        shown.wait_for_function("document.querySelector('[data-part=place]').textContent.includes('frame')")
        assert place(shown) == "slice 2 of 2, frame 2 of 3"
        shown.keyboard.press("ArrowRight")
        shown.keyboard.press("ArrowRight")
        assert place(shown) == "slice 2 of 2, frame 1 of 3"  # a heartbeat closes on itself
        shown.keyboard.press("n")
        assert place(shown) == "No picture: it was moved." and not shown.is_visible("canvas")


def test_a_cine_plays_and_its_curve_leads_to_a_frame(written: Path, chromium: Any) -> None:
    with page(chromium) as shown:
        shown.goto(written.as_uri())
        assert not shown.is_visible("[data-part=curves]")
        shown.click("tbody >> text=second")
        shown.wait_for_function("document.querySelector('[data-part=place]').textContent.includes('frame 2')")
        box = shown.locator("[data-part=curve] svg").bounding_box()
        shown.mouse.click(box["x"] + box["width"] * 0.97, box["y"] + box["height"] / 2)
        assert place(shown).endswith("frame 3 of 3")
        path = shown.get_attribute("[data-curve=lv]", "d")
        assert path.count("M") == 2 and "L" not in path  # the frame between has no volume
        shown.click("[data-part=play]")
        shown.wait_for_function("document.querySelector('[data-part=place]').textContent.includes('frame 1')")
        shown.click("[data-part=play]")
        assert shown.inner_text("[data-part=play]") == "play"


def test_the_case_is_marked_in_its_cohort_and_its_measures_are_told(written: Path, chromium: Any) -> None:
    with page(chromium) as shown:
        shown.goto(written.as_uri())
        label = lambda: shown.get_attribute("[data-part=cohort] svg", "aria-label")  # noqa: E731
        assert label() == "suspicion: this case has 2.00; all lie from 0 to 4.00, 2 above"
        mark = lambda: float(shown.get_attribute("[data-part=cohort] .mark", "x1"))  # noqa: E731
        assert mark() == 89  # half of the 178 that counts up to 4 take
        assert shown.locator("[data-part=measures] tr").all_inner_texts() == ["\tml", "RV\t0.0"]
        shown.click("tbody >> text=second")
        assert "has ∞" in label() and mark() > 178
        shown.click("tbody >> text=third")
        assert "not known" in label() and shown.locator("[data-part=cohort] .mark").count() == 0
        assert not shown.is_visible("[data-part=measures]")
        assert "More are elsewhere." in shown.inner_text(".list")


def test_layers_opacity_and_differences_are_drawn(written: Path, chromium: Any) -> None:
    """In slice 3: the LV of the mask lies at x = 37 … 46 of the image, its reconstruction two pixels farther."""
    with page(chromium) as shown:
        shown.goto(written.as_uri())
        shown.wait_for_function("document.querySelector('[data-part=place]').textContent")
        left, top = 22 - 17, 25 - 17
        at = (42 - left, 35 - top)
        shown.fill("[data-part=opacity]", "100")
        assert colour(shown, *at) == [0xD5, 0x5E, 0x00]
        shown.fill("[data-part=opacity]", "0")
        grey = colour(shown, *at)
        assert grey[0] == grey[1] == grey[2] > 150
        shown.fill("[data-part=opacity]", "100")
        shown.uncheck("[data-layer='0']")
        assert colour(shown, *at) == grey
        shown.check("[data-layer=differ]")
        assert colour(shown, *at) == grey  # both have the LV there
        assert colour(shown, 37 - left, 35 - top) == [
            0xFF,
            0x3B,
            0xD4,
        ]  # the mask's LV, the reconstruction's wall


def test_sorting_filtering_and_opening_from_the_table(written: Path, chromium: Any) -> None:
    with page(chromium) as shown:
        shown.goto(written.as_uri())
        names = lambda: shown.locator("tbody th").all_inner_texts()  # noqa: E731
        assert names() == ["<b>first</b>", "second", "third"]
        shown.click("thead >> text=suspicion")
        assert names() == ["<b>first</b>", "second", "third"]  # 2, ∞, and what is missing last
        shown.click("thead >> text=suspicion")
        assert names() == ["second", "<b>first</b>", "third"]
        shown.fill("[data-part=filter]", "susp")
        assert names() == ["second"] and shown.inner_text("[data-part=shown]") == "1 of 3 cases"
        shown.click("tbody >> text=second")
        assert shown.inner_text("[data-part=name]") == "second"


def test_decisions_are_noted_and_saved(written: Path, tmp_path: Path, chromium: Any) -> None:
    with page(chromium, accept_downloads=True) as shown:
        shown.goto(written.as_uri())
        shown.focus("canvas")
        shown.keyboard.press("r")
        shown.fill("[data-part=comment]", '=cmd "a", b')
        shown.click("tbody >> text=third")
        shown.click("[data-decision=accept]")
        assert shown.inner_text("[data-part=count]") == "2 of 3 noted"
        with shown.expect_download() as download:
            shown.click("[data-part=save]")
        assert download.value.suggested_filename == "review.csv"
        download.value.save_as(tmp_path / "review.csv")
        text = (tmp_path / "review.csv").read_text(encoding="utf-8")
        rows = list(csv.DictReader(text.splitlines()))
        assert [(r["case"], r["decision"], r["comment"]) for r in rows] == [
            ("<b>first</b>", "reject", '\'=cmd "a", b'),
            ("third", "accept", ""),
        ]
        shown.click("[data-decision=accept]")  # again: taken back
        assert shown.inner_text("[data-part=count]") == "1 of 3 noted"


def test_a_finger_changes_slices(written: Path, chromium: Any) -> None:
    with page(chromium, 400, 800, has_touch=True) as shown:
        shown.goto(written.as_uri())
        shown.wait_for_function("document.querySelector('[data-part=place]').textContent")
        swipe = """(dy) => {
            const c = document.querySelector('canvas');
            const finger = (y) => new Touch({ identifier: 1, target: c, clientX: 50, clientY: y });
            const told = (kind, y) => new TouchEvent(kind, { touches: [finger(y)], cancelable: true, bubbles: true });
            c.dispatchEvent(told('touchstart', 300)); c.dispatchEvent(told('touchmove', 300 + dy)); }"""
        shown.evaluate(swipe, -40)
        assert place(shown) == "slice 4 of 6"
        shown.evaluate(swipe, 40)
        assert place(shown) == "slice 3 of 6"
        width = shown.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1]  # nothing to push aside on a phone


def test_three_hundred_cases_without_delay(tmp_path: Path, chromium: Any) -> None:
    tiles = packed()
    cases = [ViewedCase(f"case {i}", "", "", {"suspicion": float(i % 7)}, tiles) for i in range(300)]
    path = write(tmp_path, cases)
    assert path.stat().st_size < 30e6
    with page(chromium) as shown:
        shown.goto(path.as_uri())
        started = time.monotonic()
        for _ in range(3):
            shown.click("thead >> text=suspicion")
        shown.fill("[data-part=filter]", "case 29")
        assert shown.inner_text("[data-part=shown]") == "11 of 300 cases"
        for _ in range(10):
            shown.focus("canvas")
            shown.keyboard.press("n")
        shown.wait_for_function("document.querySelector('[data-part=name]').textContent == 'case 299'")
        assert time.monotonic() - started < 20  # it takes under 2 s on an idle machine
