"""A headless Chromium for tests that click and read what a page shows; they skip where there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip


def chromium() -> str | None:
    """The program: of QCJAX_CHROMIUM, or one of the usual names on the path."""
    named = os.environ.get("QCJAX_CHROMIUM")
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


@contextmanager
def page(width: int = 1200, height: int = 900, **options: Any) -> Iterator[Any]:
    """A page of Playwright's, whose errors on the console fail the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra browser isn't installed")
    program = chromium()
    if program is None:
        pytest.skip("no Chromium found")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=list(FLAGS))
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        found = context.new_page()
        errors: list[str] = []
        found.on("pageerror", lambda error: errors.append(str(error)))
        found.on(
            "request", lambda request: errors.append(request.url) if request.url.startswith("http") else None
        )
        yield found
        browser.close()
    assert not errors, errors
