"""The command line: what it says of itself, and that it does so without loading what only its work needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qcjax import cli

ROOT = Path(__file__).parent.parent
HEAVY = {"jax", "flax", "optax", "matplotlib", "scipy.ndimage", "scipy.stats", "pandas", "SimpleITK", "torch"}
LOADED = (
    "import json, sys\n"
    "from qcjax.cli import main\n"
    "try:\n"
    "    main()\n"
    "except SystemExit:\n"
    "    pass\n"
    "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("score", "--help"),
        ("score", "--mask", "typo"),
        ("validate", "absent", "--dataset", "acdc"),
    ],
)
def test_help_mistyped_options_and_validate_load_nothing_heavy(arguments, tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(found.stderr.splitlines()[-1]))
    assert "qcjax.cli" in loaded and not HEAVY & loaded
    assert ("nibabel" in loaded) == (arguments[-1] == "acdc")


def shown(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", "").split())


def test_the_list_of_commands_has_a_sentence_and_an_example_of_each(capsys):
    text = shown(capsys, "--help")
    for name in cli.COMMANDS:
        assert text.count(f"Example: qcjax {name} ") == 1
    assert "Train a monitor on masks that you trust; `qcjax score` then judges others by it." in text
    assert "no image is needed" not in text  # that is for those who ask for this command


def test_the_help_of_one_command_says_all_of_it(capsys):
    text = shown(capsys, "monitor", "--help")
    assert "no image is needed" in text and "Example: qcjax monitor train " in text
    assert "Height and width of the prepared slices in pixels, a multiple of 64" in text


def test_every_example_is_understood_but_for_the_files_it_names():
    """An option that a command no longer has would go on living in its example."""
    for command in cli.COMMANDS.values():
        _, _, example = cli.in_short(command).partition("Example: qcjax ")
        options = {word for word in example.split() if word.startswith("--")}
        names = {f"--{name.replace('_', '-')}" for name in command.__annotations__}
        assert options <= names


def test_a_command_without_an_example_is_refused():
    def nothing() -> int:
        """Does nothing."""
        return 0

    with pytest.raises(ValueError, match="nothing: a docstring without example found"):
        cli.in_short(nothing)
