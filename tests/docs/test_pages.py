"""The pages: links lead somewhere, files that are named exist, and the map of the tree is that of the tree."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT, name_of, without_blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
LONGEST_SENTENCE = 30  # words
MOST_WORDS = 900


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and the site make them."""
    text = without_blocks(page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = without_blocks(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_of_the_project_that_a_page_names_exist(page: Path) -> None:
    text = without_blocks(page.read_text(encoding="utf-8"))
    for named in re.findall(r"`((?:qcjax|experiments|tests|benchmarks|docs)/[\w./-]+)`", text):
        # of the reliability page, tests below tests/
        assert (ROOT / named).exists() or (ROOT / "tests" / named).exists(), named


def test_the_tree_on_the_page_is_that_of_the_package() -> None:
    (tree,) = (block for block in re.findall(r"^```\n(.*?)^```$", ARCHITECTURE, re.MULTILINE | re.DOTALL))
    told = set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)) | set(re.findall(r"\b(\w+\.py)\b", tree))
    files = {path.name for path in (ROOT / "qcjax").glob("*.py")} - {"__init__.py"}
    rooms = {path.parent.name for path in (ROOT / "qcjax").glob("*/__init__.py")}
    assert told == files | rooms


def test_the_contract_on_the_page_is_the_one_that_is_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (c for c in settings["contracts"] if c["type"] == "layers")
    checked = [
        {room.strip().removeprefix("qcjax.") for room in floor.split("|")} for floor in contract["layers"]
    ]
    table = ARCHITECTURE.split("## The contract")[1].split("##")[0]
    told = [
        set(re.findall(r"`(\w+)`", row.split("|")[2]))
        for row in re.findall(r"^\| .*$", table, re.MULTILINE)[2:]
    ]
    assert told == checked


def test_the_index_of_each_names_every_page() -> None:
    for page in sorted(DOCS.glob("*.md")) + sorted((DOCS / "results").glob("*.md")):
        name = page.relative_to(DOCS).as_posix()
        assert name == "index.md" or f"]({name}" in (DOCS / "index.md").read_text(encoding="utf-8")
        assert name == "index.md" or f"](docs/{name}" in README


def test_the_readme_is_short() -> None:
    assert len(README.split()) < MOST_WORDS


def test_the_readme_has_no_long_sentence() -> None:
    prose = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", without_blocks(README))
    parts = re.split(r"\n\s*\n|^#+ |\|", prose, flags=re.MULTILINE)
    sentences = [sentence for part in parts for sentence in re.split(r"(?<=[.?!])[*]*\s+", part)]
    assert len(sentences) > 40
    longest = max(sentences, key=lambda sentence: len(sentence.split()))
    assert len(longest.split()) <= LONGEST_SENTENCE, longest
