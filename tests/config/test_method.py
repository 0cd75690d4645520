"""A method's names are keys that exist, and every one of its fields tells the two readings apart."""

import dataclasses
from typing import get_args, get_type_hints

import pytest

from qcjax import losses
from qcjax.config import METHODS, PAPER, Preset, method_of
from qcjax.refinement.run import REFINEMENTS


def test_demo_and_small_read_as_the_paper_does() -> None:
    assert [method_of(preset).name for preset in get_args(Preset)] == [
        "paper",
        "paper",
        "paper",
        "original",
        "paper",
    ]
    assert METHODS["paper"] is PAPER


@pytest.mark.parametrize("name", METHODS)
def test_the_names_are_known(name: str) -> None:
    method = METHODS[name]
    assert method.name == name
    assert method.supervised_loss in losses.SUPERVISED and method.autoencoder_loss in losses.SUPERVISED
    assert method.refinement in REFINEMENTS


def test_nothing_is_said_that_both_share() -> None:
    fields = {f.name for f in dataclasses.fields(PAPER)}
    same = {name for name in fields if getattr(PAPER, name) == getattr(METHODS["original"], name)}
    assert not same and fields == set(get_type_hints(type(PAPER)))
