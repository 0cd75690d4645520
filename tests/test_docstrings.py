"""Every public function and class says what comes back, and public functions of arrays say their shapes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "qcjax"
FILES = sorted(PACKAGE.rglob("*.py"))
INCOMPLETE = re.compile(r"(Of|Those|Whose|From|Over|With|By|For|In)\b")  # a first sentence without a subject
Public = ast.FunctionDef | ast.ClassDef


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Public]]:
    """(dotted name, definition) of what is public at the top of a module or in a public class."""
    for node in body:
        if isinstance(node, Public) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


def complaints(source: str) -> list[str]:
    found = []
    for name, node in public(ast.parse(source).body):
        text = ast.get_docstring(node)
        if not text:
            found.append(f"{name}: no docstring found")
        elif INCOMPLETE.match(text):
            found.append(f"{name}: {text.splitlines()[0]!r} found, expected what comes back")
    return found


def test_docstrings_say_what_comes_back() -> None:
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
    assert len(sources) > 100
    assert [f"{path}: {c}" for path, source in sources.items() for c in complaints(source)] == []


def test_a_missing_and_an_incomplete_docstring_are_found() -> None:
    source = '''
def bare(): pass
def of(): "Of a case."
def good(): "The Dice of a case."
def _private(): pass
class Kept:
    """A thing."""
    def often(self): "Often enough."
    def those(self): "Those asked for."
'''
    assert [c.split(":")[0] for c in complaints(source)] == ["bare", "of", "Kept.those"]
