"""Every public function and class says what comes back, and every public function of arrays their shapes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from qcjax.train.stage import Stage

PACKAGE = Path(__file__).resolve().parent.parent / "qcjax"
FILES = sorted(PACKAGE.rglob("*.py"))
INCOMPLETE = re.compile(r"(Of|Those|Whose|From|Over|With|By|For|In)\b")  # a first sentence without a subject
BARE = {"Array", "ndarray"}
Public = ast.FunctionDef | ast.ClassDef
STAGE = {name for name in vars(Stage) if not name.startswith("_")}


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Public]]:
    """(dotted name, definition) of what is public at the top of a module or in a public class."""
    for node in body:
        if isinstance(node, Public) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                own = [n for n in node.body if getattr(n, "name", "") not in inherited(node)]
                yield from public(own, f"{prefix}{node.name}.")


def inherited(node: ast.ClassDef) -> set[str]:
    """The methods that the class's base tells of: what `train.stage.Stage` asks of every training."""
    return STAGE if any(isinstance(b, ast.Name) and b.id == "Stage" for b in node.bases) else set()


def bare(annotation: ast.expr) -> bool:
    """Whether an annotation names an array without a shape; in `Float[Array, "b k"]` it has one."""
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        _, *shape = annotation.slice.elts
        if len(shape) == 1 and isinstance(shape[0], ast.Constant) and isinstance(shape[0].value, str):
            return False
    if isinstance(annotation, ast.Name | ast.Attribute):
        return (annotation.id if isinstance(annotation, ast.Name) else annotation.attr) in BARE
    return any(bare(child) for child in ast.iter_child_nodes(annotation) if isinstance(child, ast.expr))


def shapeless(source: str) -> list[str]:
    """The public functions with an array that doesn't say its shape."""
    found = []
    for name, node in public(ast.parse(source).body):
        if isinstance(node, ast.FunctionDef):
            arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            annotations = [node.returns, *(argument.annotation for argument in arguments)]
            if any(annotation is not None and bare(annotation) for annotation in annotations):
                found.append(name)
    return found


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


def test_arrays_say_their_shapes() -> None:
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
    assert [f"{path}: {name}" for path, source in sources.items() for name in shapeless(source)] == []


def test_an_array_without_a_shape_is_found() -> None:
    source = """
def takes(x: np.ndarray): pass
def gives() -> tuple[int, Array | None]: pass
def calls(f: Callable[[Array], float]): pass
def shaped(x: Float[np.ndarray, "n k"] | None, y: list[Int[Array, " n"]]) -> Bool[Array, ""]: pass
"""
    assert shapeless(source) == ["takes", "gives", "calls"]


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
