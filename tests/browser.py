"""A headless Chromium for tests that click and read what a page shows; they skip where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
WIDTHS = (400, 900, 1600)  # a phone, a tablet, a desk


def chromium() -> str | None:
    """The program: of QCJAX_CHROMIUM, or one of the usual names on the path."""
    named = os.environ.get("QCJAX_CHROMIUM")
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


@contextmanager
def browser() -> Iterator[Any]:
    """Playwright's browser; while it is open no event loop can be started."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra browser isn't installed")
    program = chromium()
    if program is None:
        pytest.skip("no Chromium found")
    with playwright.sync_playwright() as p:
        started = p.chromium.launch(executable_path=program, args=list(FLAGS))
        yield started
        started.close()


@contextmanager
def page(started: Any, width: int = 1200, height: int = 900, **options: Any) -> Iterator[Any]:
    """A page of a browser's; errors on its console, and whatever it asks of a network, fail the test."""
    context = started.new_context(viewport={"width": width, "height": height}, **options)
    found = context.new_page()
    errors: list[str] = []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on(
        "request", lambda request: errors.append(request.url) if request.url.startswith("http") else None
    )
    yield found
    context.close()
    assert not errors, errors


def check_widths(started: Any, path: Path) -> None:
    """Nothing of a page has to be pushed aside to be read, on no screen; and it prints."""
    for width in WIDTHS:
        with page(started, width) as shown:
            shown.goto(path.as_uri())
            wide, room = shown.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= room, f"{path}: {wide} pixels wide found at {room}"
    with page(started) as shown:
        shown.goto(path.as_uri())
        assert shown.pdf().startswith(b"%PDF")
