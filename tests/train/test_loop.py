"""Epochs, logs, and going on after a stop."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.refinement.autoencoder import train_autoencoder
from qcjax.refinement.refine import Pool, refine
from qcjax.runtime.devices import Devices
from qcjax.train import arm as arms
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.journal import Journal
from qcjax.train.loop import fit, stream
from qcjax.train.segmenter import train_segmenter
from qcjax.train.stage import Stage
from qcjax.train.state import TrainState

ONE = {"stage": "segmenter", "view": "SA"}


class Stopped(Exception):
    """A kill."""


class Doubling(Stage):
    """A stage of one step per epoch: the weight doubles and adds the epoch."""

    identity = ONE

    def __init__(self, epochs, stop_at, finished):
        self.epochs, self.stop_at, self.finished = epochs, stop_at, finished

    def init(self):
        return TrainState(jnp.int32(0), {"w": jnp.float32(0)}, {}, {})

    def batches(self, epoch):
        if epoch == self.stop_at:
            raise Stopped
        return [(np.float32(epoch),)]

    def step(self, epoch):
        def double(state, x):
            w = 2 * state.params["w"] + x
            return state.replace(step=state.step + 1, params={"w": w}), {"loss": w}

        return double

    def validate(self, state, epoch):
        return {"validation_loss": 1 / epoch}


def run(folder, epochs=3, stop_at=None, finished=lambda r: False):
    """Train the stage above; returns the weight and the journal."""
    checkpoints, journal = Checkpoints(folder / "kept", "segmenter", 2), Journal(folder / "metrics.jsonl")
    try:
        state = fit(Doubling(epochs, stop_at, finished), journal, checkpoints, Devices(1))
    finally:
        checkpoints.close()
    return float(state.params["w"]), journal.read()


def without_times(records):
    return [{k: v for k, v in r.items() if not k.endswith("seconds")} for r in records]


def test_an_epoch_after_the_other(tmp_path, capsys):
    weight, records = run(tmp_path)
    assert weight == 11  # 1, 4, 11
    assert without_times(records) == [
        ONE | {"epoch": e, "train_loss": w, "validation_loss": 1 / e} for e, w in ((1, 1), (2, 4), (3, 11))
    ]
    printed = capsys.readouterr().out
    assert "segmenter SA: epoch 1/3, loss 1.0000, validation 1.0000" in printed
    assert printed.count("done about") == 1


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_stop_makes_no_difference(tmp_path, stop_at):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected = run(tmp_path / "a")
    with pytest.raises(Stopped):
        run(tmp_path / "b", stop_at=stop_at)
    weight, records = run(tmp_path / "b")
    assert weight == expected[0]
    assert without_times(records) == without_times(expected[1])


def test_a_finished_stage_is_not_trained_again(tmp_path):
    run(tmp_path)
    weight, records = run(tmp_path, stop_at=1)
    assert weight == 11 and len(records) == 3


def test_a_stage_may_end_early_and_stays_ended(tmp_path):
    enough = lambda record: record["epoch"] == 2  # noqa: E731
    assert run(tmp_path, finished=enough)[0] == 4
    weight, records = run(tmp_path, stop_at=3, finished=enough)
    assert weight == 4 and len(records) == 2


def test_streams_of_random_numbers_differ_by_name_and_number():
    key = jax.random.key(0)
    names = [("segmenter", "SA"), ("segmenter", "LA"), ("SA", "segmenter"), ("segmenter", 1), ("segmenter",)]
    found = np.array([jax.random.key_data(stream(key, *n)) for n in names])
    assert len(np.unique(found, axis=0)) == len(names)
    again = jax.random.key_data(stream(jax.random.key(0), "segmenter", "SA"))
    np.testing.assert_array_equal(found[0], again)


def weights(folder, name):
    """All that a stage's latest checkpoint holds."""
    import orbax.checkpoint as ocp

    latest = max(int(p.name) for p in (folder / "checkpoints" / name).iterdir() if p.name.isdigit())
    with ocp.StandardCheckpointer() as reader:
        return reader.restore((folder / "checkpoints" / name / str(latest) / "state").resolve())


def train_all(arm):
    """All stages of an arm."""
    autoencoder = train_autoencoder(arm)
    supervised = train_segmenter(arm)
    refined = refine(Pool(arm, autoencoder, [supervised]), "refined", 2, True)
    control = refine(Pool(arm, autoencoder, [supervised]), "control", 2, False)
    for checkpoints in (supervised, refined, control):
        checkpoints.close()


STAGES = ("autoencoder-SA", "segmenter-nnunet-SA", "refined-nnunet-SA", "control-nnunet-SA")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, networks):
    return tmp_path_factory.mktemp("uninterrupted")


def test_stops_in_the_middle_of_epochs_make_no_difference_to_training(make_arm, monkeypatch):
    """Bit for bit: parameters, running statistics, optimiser, and the journal."""
    whole = make_arm("whole")
    # nothing is OoD at random in this cohort, so say what is
    monkeypatch.setattr(
        Pool, "detect", lambda self, candidates, cases=None: (np.array([True, False] * 3), {})
    )
    train_all(whole)

    opened = []

    class Recorded(Checkpoints):
        def __init__(self, *args):
            super().__init__(*args)
            opened.append(self)

    monkeypatch.setattr(arms, "Checkpoints", Recorded)
    cut = make_arm("cut")
    networks, stops = cut.networks, 0
    for step_name, count in (("autoencoder_step", 4), ("supervised_step", 6), ("refinement_step", 4)):
        step, calls = getattr(networks, step_name), []

        def stopping(*args, step=step, calls=calls, count=count):
            calls.append(None)
            if len(calls) == count:
                raise Stopped
            return step(*args)

        with monkeypatch.context() as patch:
            patch.setitem(networks.__dict__, step_name, stopping)
            with pytest.raises(Stopped):
                train_all(cut)
            stops += 1
        for checkpoints in opened:  # what a killed process has under way does not go on beside the next one
            checkpoints.wait()
    train_all(make_arm("cut"))
    assert stops == 3
    for stage in STAGES:
        chex.assert_trees_all_equal(weights(whole.folder, stage), weights(cut.folder, stage))
    assert without_times(whole.journal.read()) == without_times(cut.journal.read())
    assert len(whole.journal.read()) == 2 + 3 + 2 + 2
