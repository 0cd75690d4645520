"""Every command that README and the pages of tasks give is understood, word for word, by what it calls."""

import functools
import importlib
import re
import shlex
import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from qcjax import cli
from tests.docs.pages import DOCS, ROOT, blocks, commands

NAMED = {"README": ROOT / "README.md", "how-to": DOCS / "how-to.md", "segmentation": DOCS / "segmentation.md"}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in NAMED.items()}
GIVEN = [(page, line) for page, text in TEXTS.items() for line in commands(text)]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
RUN = ("experiments.benchmark", "experiments.quality")  # what these call is `run`, others' `start`


def parsed_by_qcjax(words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command would be called with."""
    calls: list[dict[str, Any]] = []

    def noted(command: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(command)
        def called(**given: Any) -> int:
            calls.append(given)
            return 0

        return called

    monkeypatch.setattr(cli, "COMMANDS", {name: noted(command) for name, command in cli.COMMANDS.items()})
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 0
    (call,) = calls
    return call


def parsed_by_experiment(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The configuration that the experiment would run with."""
    module = importlib.import_module(name)
    configs: list[Any] = []

    def noted(config: Any, *rest: Any) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr(module, "run" if name in RUN else "start", noted)
    assert module.main(words) == 0
    (config,) = configs
    return config


def check_pip(words: list[str]) -> None:
    """An installation of this project: its extras and its files exist."""
    if words[:2] == ["-r", "requirements-cuda.txt"]:
        assert (ROOT / words[1]).is_file()
        return
    found = re.fullmatch(r"\.(?:\[([\w,]+)\])?", words[1])
    assert words[0] == "-e" and len(words) == 2 and found
    assert set((found[1] or "").split(",")) <= {"", *EXTRAS}


def check(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in line.split("&&"):
        words = shlex.split(part, comments=True)
        while "=" in words[0]:
            variable = words.pop(0).split("=")[0]
            assert f'"{variable}"' in TESTS
        match words:
            case ["pip", "install", *rest]:
                check_pip(rest)
            case ["pytest"]:
                pass
            case ["mkdocs", "build", "--strict"]:
                assert (ROOT / "mkdocs.yml").is_file()
            case ["python", "-m", name, *rest]:
                parsed_by_experiment(name, rest, monkeypatch)
            case ["qcjax", *rest]:
                parsed_by_qcjax(rest, monkeypatch)
            case _:
                pytest.fail(f"{part!r} found, expected a command of the project")


@pytest.mark.parametrize(("page", "line"), GIVEN, ids=[f"{page}: {line}" for page, line in GIVEN])
def test_a_command_is_understood(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(line, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "qcjax score --monitor monitor --masks predictions",
        "qcjax score --monitors monitor --masks predictions --out scores",
        "python -m experiments.mnms2 --preset smal",
        "pip install -e '.[docz]'",
        "QCJAX_SLOW=1 pytest",
        "wget data",
    ],
)
def test_a_command_with_a_mistake_is_not(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((AssertionError, SystemExit, pytest.fail.Exception)):
        check(line, monkeypatch)


def test_the_two_commands_of_the_readme() -> None:
    lines = commands(TEXTS["README"])
    assert "pip install -e . && python -m experiments.mnms2" in lines
    assert "pip install -e '.[test]' && pytest" in lines


def test_every_command_has_its_place_in_the_how_to() -> None:
    told = commands(TEXTS["how-to"])
    for name in cli.COMMANDS:
        assert any(line.startswith(f"qcjax {name} ") for line in told)


@pytest.mark.parametrize("page", TEXTS)
def test_python_of_the_pages_compiles(page: str) -> None:
    for block in blocks(TEXTS[page], "python"):
        compile(block, page, "exec")


def test_python_of_the_pages_imports_what_there_is() -> None:
    lines = [
        line for text in TEXTS.values() for block in blocks(text, "python") for line in block.splitlines()
    ]
    imports = sorted({line for line in lines if re.match(r"(from|import) ", line)})
    assert "import qcjax" in imports
    exec("\n".join(imports), {})


@pytest.mark.parametrize("page", TEXTS)
def test_what_python_of_the_pages_takes_from_qcjax_exists(page: str) -> None:
    """Names with a dot after qcjax, model or monitor, in the blocks."""
    import qcjax

    owners = {"qcjax": qcjax, "model": qcjax.Model, "monitor": qcjax.Monitor}
    text = "\n".join(block for block in blocks(TEXTS[page], "python") if "import qcjax\n" in block)
    used = re.findall(r"(?<![\w.])(qcjax|model|monitor)\.(\w+)\(", text)
    assert used
    for owner, name in used:
        assert callable(getattr(owners[owner], name))
