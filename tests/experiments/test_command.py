from dataclasses import fields

import pytest

from experiments import mnms2
from experiments.command import parse
from experiments.presets import DEMO, ORIGINAL, PRESETS, SMALL
from qcjax.config import Config


def of(*argv):
    return parse(list(argv), Config, PRESETS)


def test_without_data_it_is_the_demo_and_with_data_the_paper():
    assert of() == DEMO
    assert of("--data", "here").preset == of("--data=here").preset == "paper"
    assert of("--data", "here").segmenter == ("nnunet", "acdc_unet")


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    config = of("--preset", name)
    assert config == PRESETS[name] == of(f"--preset={name}")
    assert config.preset == name
    assert config.losses == ("original" if name == "original" else "paper")
    assert config.segmenter == (("nnunet",) if name in ("demo", "small") else ("nnunet", "acdc_unet"))


def test_options_override_their_preset():
    config = of(
        "--data", "d", "--preset", "small", "--supervised.epochs", "3", "--views", "LA", "--seed", "7"
    )
    assert (config.preset, config.supervised.epochs, config.views, config.seed) == ("small", 3, ("LA",), 7)
    assert config.supervised.width == SMALL.supervised.width
    assert of("--preset", "original").supervised.m_best == ORIGINAL.supervised.m_best == 5


@pytest.mark.parametrize("argv", [("--preset", "fast"), ("--views", "ES"), ("--nonsense", "1")])
def test_what_is_not_understood_is_refused(argv, capsys):
    with pytest.raises(SystemExit) as error:
        of(*argv)
    assert error.value.code == 2
    printed = capsys.readouterr()
    assert argv[-1] in printed.err + printed.out or argv[0] in printed.err + printed.out


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as error:
        mnms2.main(["--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    for part in (Config, *(type(getattr(DEMO, n)) for n in ("supervised", "autoencoder", "refinement"))):
        for field in fields(part):
            assert field.name.replace("_", "-") in text, field.name
    for word in ("validation", "autoencoder", "OoD", "Short-axis"):
        assert word in text
