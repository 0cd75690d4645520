import jax.numpy as jnp
import numpy as np
import pytest

from qcjax.train.checkpoint import Candidate, Checkpoints
from qcjax.train.journal import Journal


def tree(value):
    return {"w": np.full((2, 3), value, np.float32), "step": np.int32(value)}


@pytest.fixture
def open_(tmp_path):
    opened = []

    def open_(m_best=2, always=()):
        opened.append(Checkpoints(tmp_path / "kept", "segmenter", m_best, always))
        return opened[-1]

    yield open_
    for checkpoints in opened:
        checkpoints.close()


def save(checkpoints, losses):
    for epoch, loss in enumerate(losses, start=1):
        checkpoints.save(epoch, {"validation_loss": loss, "epoch": epoch}, state=tree(epoch))
    checkpoints.wait()


def on_disk(tmp_path):
    return sorted(int(p.name) for p in (tmp_path / "kept").iterdir() if p.name.isdigit())


def test_the_best_and_the_latest_are_kept(open_, tmp_path):
    checkpoints = open_()
    save(checkpoints, [0.5, 0.2, 0.9, 0.3, 0.8])
    assert on_disk(tmp_path) == [2, 4, 5]
    assert checkpoints.latest() == 5
    assert checkpoints.candidates() == [Candidate("segmenter", 2, 0.2), Candidate("segmenter", 4, 0.3)]


def test_losses_that_are_not_finite_are_the_worst(open_, tmp_path):
    checkpoints = open_()
    save(checkpoints, [float("nan"), 0.9, float("-inf"), 0.8, float("inf")])
    assert [c.epoch for c in checkpoints.candidates()] == [4, 2]
    assert on_disk(tmp_path) == [2, 4, 5]


def test_of_equal_losses_the_later_one_comes_first_and_is_on_disk(open_, tmp_path):
    checkpoints = open_()
    save(checkpoints, [0.5, 0.5, 0.5, 0.5, 0.9])
    candidates = [c.epoch for c in checkpoints.candidates()]
    assert candidates == [4, 3]
    assert set(candidates) <= set(on_disk(tmp_path))


def test_given_epochs_are_kept_always(open_, tmp_path):
    checkpoints = open_(m_best=1, always=(3,))
    save(checkpoints, [0.1, 0.2, 0.9, 0.4, 0.5])
    assert on_disk(tmp_path) == [1, 3, 4, 5]
    assert [c.epoch for c in checkpoints.candidates()] == [1]


def test_what_was_saved_is_restored_by_another_process(open_):
    first = open_()
    save(first, [0.5, 0.2])
    first.close()
    again = open_()
    assert again.latest() == 2
    assert again.metrics(2) == {"validation_loss": 0.2, "epoch": 2}
    for template in (tree(0), {"w": jnp.zeros((2, 3)), "step": jnp.int32(0)}):
        restored = again.restore(1, state=template)["state"]
        np.testing.assert_array_equal(restored["w"], np.full((2, 3), 1))
        assert restored["step"] == 1 and restored["w"].dtype == np.float32
    assert [c.epoch for c in again.candidates()] == [2, 1]


def test_an_empty_folder(open_):
    checkpoints = open_()
    assert checkpoints.latest() is None and checkpoints.candidates() == []


SEGMENTER, OTHER = {"stage": "segmenter", "view": "SA"}, {"stage": "segmenter", "view": "LA"}


def test_the_journal_rewinds_one_stage(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    assert journal.read() == []
    for epoch in (1, 2, 3):
        journal.append(SEGMENTER | {"epoch": epoch, "loss": epoch / 2})
    journal.append(OTHER | {"epoch": 3})
    journal.rewind(SEGMENTER, 2, SEGMENTER | {"epoch": 2, "loss": 1.0})
    assert [(r["view"], r["epoch"]) for r in journal.read()] == [("SA", 1), ("SA", 2), ("LA", 3)]


def test_the_journal_gets_the_line_that_a_kill_prevented(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.append(SEGMENTER | {"epoch": 1})
    journal.rewind(SEGMENTER, 2, SEGMENTER | {"epoch": 2, "loss": 0.5})
    assert journal.read() == [SEGMENTER | {"epoch": 1}, SEGMENTER | {"epoch": 2, "loss": 0.5}]


def test_half_a_line_does_not_count_and_goes(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.append(SEGMENTER | {"epoch": 1})
    with journal.path.open("a") as file:
        file.write('{"stage": "segmenter", "vie')
    assert len(journal.read()) == 1
    journal.rewind(SEGMENTER, 1, None)
    journal.append(SEGMENTER | {"epoch": 2})
    assert [r["epoch"] for r in journal.read()] == [1, 2]
    assert journal.path.read_text().count("\n") == 2
