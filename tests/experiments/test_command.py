from dataclasses import fields

import pytest

from experiments import mnms2
from experiments.command import parse
from experiments.presets import DEMO, ORIGINAL, PRESETS, SMALL
from qcjax.config import Mnms2Config


def of(*argv):
    return parse(list(argv), Mnms2Config, PRESETS)


def test_without_data_it_is_the_demo_and_with_data_the_paper():
    assert of() == DEMO
    assert of("--data", "here").preset == of("--data=here").preset == "paper"
    assert of("--data", "here").segmenter == ("nnunet", "acdc_unet")


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    config = of("--preset", name)
    assert config == PRESETS[name] == of(f"--preset={name}")
    assert config.preset == name
    assert config.method.name == ("original" if name == "original" else "paper")
    assert config.segmenter == (("nnunet",) if name in ("demo", "small", "ours") else ("nnunet", "acdc_unet"))


def test_options_override_their_preset():
    config = of(
        "--data", "d", "--preset", "small", "--supervised.epochs", "3", "--views", "LA", "--seed", "7"
    )
    assert (config.preset, config.supervised.epochs, config.views, config.seed) == ("small", 3, ("LA",), 7)
    assert config.supervised.width == SMALL.supervised.width
    assert of("--preset", "original").supervised.m_best == ORIGINAL.supervised.m_best == 5
    assert of("--preset", "demo", "--preset", "small") == SMALL  # the last one counts, whole


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
    groups = ("supervised", "autoencoder", "refinement", "hosts")
    names = [(f.name,) for f in fields(Mnms2Config) if f.name not in groups]
    names += [(group, f.name) for group in groups for f in fields(getattr(DEMO, group))]
    for name in names:
        assert f"--{'.'.join(name)}".replace("_", "-") in text, name
    for word in ("validation", "autoencoder", "OoD", "Short-axis"):
        assert word in text


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--size", "96"), "--size: 96 found, expected a multiple of 64"),
        (("--spacing-mm", "0"), "--spacing-mm: 0.0 found, expected a number above 0"),
        (("--seed", "-1"), "--seed: -1 found, expected at least 0"),
        (("--autoencoder.dropout", "1"), "--dropout: 1.0 found, expected at least 0 and below 1"),
        (("--supervised.scale", "0", "1"), "--scale: 0.0 found, expected a number above 0"),
        (("--supervised.mirror", "2"), "--mirror: 2.0 found, expected 0 to 1"),
        (("--views", "SA", "--views", "LA"), "--views: found twice, expected once"),
        (("--mc-samples", "1"), "--mc-samples: 1 found, expected 0 or at least 2"),
        (("--mc-samples", "5", "--mc-chunk", "0"), "--mc-chunk: 0 found, expected at least 1"),
        (("--segmenter",), "--segmenter: none found, expected at least one"),
        (("--devices", "0"), "--devices: 0 found, expected at least 1"),
        (("--supervised.batch", "0"), "--batch: 0 found, expected at least 1"),
        (("--autoencoder.epochs", "0"), "--epochs: 0 found, expected at least 1"),
        (("--refinement.steps", "0"), "--steps: 0 found, expected at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(argv, said, capsys):
    with pytest.raises(SystemExit) as error:
        of(*argv)
    printed = capsys.readouterr()
    assert error.value.code == 2 and said in " ".join((printed.err + printed.out).replace("│", " ").split())


def test_selection_needs_no_refinement():
    assert of("--refinement.epochs", "0").refinement.epochs == 0
