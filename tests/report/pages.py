"""What every report's page has to be."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"


def text_of(path: Path) -> str:
    """The page without its pictures and tags, blanks made one."""
    html = re.sub(r'src="data:[^"]*"', "", path.read_text(encoding="utf-8"))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def check_sections(path: Path, sections: Sequence[tuple[str, str]]) -> None:
    """Every section once, and a link to it; nothing of the template is left."""
    html = path.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    for name, _ in sections:
        assert html.count(f'<section id="{name}">') == 1
        assert html.count(f'href="#{name}"') == 1
    assert "{{" not in html and "{%" not in html


def check_opening(path: Path) -> None:
    """Before anything else of the page, and its first screen of words: a picture and a plot, a sentence each."""
    html = path.read_text(encoding="utf-8")
    start = html[html.index("<h1>") : html.index('<section id="findings">')]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", start, re.DOTALL)
    assert start.count("<img") == len(captions) == 2 and "<table" not in start
    assert all(text.endswith(".") and ". " not in text for text in captions), captions
    run, content = html.index('<section id="run">'), html.index('<section id="findings">')
    assert content < run and "<dl class" not in html[:run]


def check_pictures(path: Path, at_least: int) -> None:
    """No network, no script; pictures are in the page, with words for those who cannot see them."""
    html = path.read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]*)"', html)
    html = re.sub(r'src="[^"]*"', "", html)  # a picture's bytes may spell anything
    assert "http" not in html and "<script" not in html and "<link" not in html and "url(" not in html
    assert len(sources) >= at_least
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64" and base64.b64decode(data).startswith(PNG)
    assert all(len(text) > 20 for text in re.findall(r'<img[^>]* alt="([^"]*)"', html))
    assert html.count("<img") == len(re.findall(r'<img[^>]* alt="', html))
