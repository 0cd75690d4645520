"""The reference of the site: every room has its page, and docstrings speak of parameters that there are."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.pages import DOCS, ROOT

MODULES = sorted(path for path in (ROOT / "qcjax").rglob("*.py") if path.name != "__init__.py")


def functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Those of a module, with the docstring that speaks of their parameters."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield node, text


def named_arguments(docstring: str) -> list[str]:
    """The names of the section Args, several of them on a line."""
    section = re.search(r"^Args:\n((?:  .*\n?|\n)+)", docstring, re.MULTILINE)
    if section is None:
        return []
    lines = re.findall(r"^ {2,4}(\*{0,2}\w+(?:, \w+)*):(?: |$)", section[1], re.MULTILINE)
    return [name.strip(" *") for line in lines for name in line.split(",")]


def parameters(function: ast.FunctionDef) -> set[str]:
    a = function.args
    every = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(x for x in (a.vararg, a.kwarg) if x)]
    return {argument.arg for argument in every}


def test_every_room_has_its_page() -> None:
    rooms = {path.relative_to(ROOT / "qcjax").parts[0].removesuffix(".py") for path in MODULES}
    assert rooms == {page.stem for page in (DOCS / "api").glob("*.md")} - {"qcjax"}
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for room in rooms:
        assert f"api/{room}.md\n" in navigation
        assert f"::: qcjax.{room}\n" in (DOCS / "api" / f"{room}.md").read_text(encoding="utf-8")


def test_docstrings_name_parameters_that_there_are() -> None:
    unknown = [
        f"{path.relative_to(ROOT)}:{function.lineno}: {name}"
        for path in MODULES
        for function, text in functions(ast.parse(Path(path).read_text(encoding="utf-8")))
        for name in named_arguments(text)
        if name not in parameters(function)
    ]
    assert unknown == []


def test_a_name_that_is_no_parameter_is_found() -> None:
    text = 'def f(a, b, *rest):\n    """F.\n\n    Args:\n      a, c: of them.\n      rest: more.\n    """\n'
    ((function, docstring),) = functions(ast.parse(text))
    assert named_arguments(docstring) == ["a", "c", "rest"]
    assert parameters(function) == {"a", "b", "rest"}
