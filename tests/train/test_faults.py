"""Faults of long runs, caused: stops by signals, losses that aren't finite, damaged checkpoints, full disks."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from qcjax.runtime.devices import Devices
from qcjax.runtime.stops import Stopped, stoppable
from qcjax.train.checkpoint import Checkpoints
from qcjax.train.checksums import DamagedCheckpoint
from qcjax.train.journal import Journal
from qcjax.train.networks import Networks
from qcjax.train.nonfinite import skip_nonfinite
from qcjax.train.steps import run_steps
from tests.train.toy import ONE, STEPS, double_and_add, number, train_toy

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def nothing_left():
    """Of a failed restore, Orbax leaves coroutines behind that complain when they are collected: here, not later."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train_toy(tmp_path_factory.mktemp("undisturbed"))


def signalling(place, signum=signal.SIGTERM):
    """The batches, with a signal while one of them is made."""

    def batch(epoch, step):
        if (epoch, step) == place:
            os.kill(os.getpid(), signum)
        return number(epoch, step)

    return batch


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_stop_in_the_last_step_makes_no_step_again(tmp_path, undisturbed, epoch):
    made = []

    def counted(state, x, stop=True):
        made.append(None)
        if stop and len(made) == epoch * STEPS:
            os.kill(os.getpid(), signal.SIGTERM)
        return double_and_add(state, x)

    with pytest.raises(Stopped), stoppable():
        train_toy(tmp_path, step=counted)
    made.clear()
    assert train_toy(tmp_path, step=lambda state, x: counted(state, x, False)) == undisturbed
    assert len(made) == (3 - epoch) * STEPS


def test_an_epoch_that_is_being_written_survives_a_stop(tmp_path, undisturbed, monkeypatch):
    """The signal comes while the epoch is on its way to disk, and nobody closes its checkpoints."""
    write, append = Checkpoints._write, Journal.append

    def slow_write(*args):
        time.sleep(0.5)
        write(*args)

    def stopped(self, record):
        if record["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        append(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_write", slow_write)
        patch.setattr(Checkpoints, "close", lambda self: None)
        patch.setattr(Journal, "append", stopped)
        with pytest.raises(Stopped), stoppable():
            train_toy(tmp_path)
        assert (tmp_path / "kept" / "2").is_dir()
    assert train_toy(tmp_path) == undisturbed


def test_a_second_signal_does_not_break_off_the_saving(tmp_path, undisturbed, monkeypatch):
    save_cut = Checkpoints.save_cut

    def again(self, cut):
        os.kill(os.getpid(), signal.SIGTERM)
        save_cut(self, cut)
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(Checkpoints, "save_cut", again)
    with pytest.raises(Stopped, match="SIGTERM"), stoppable():
        train_toy(tmp_path, batch=signalling((2, 2)))
    assert (tmp_path / "kept.cut").is_dir()
    assert train_toy(tmp_path) == undisturbed


def test_a_stop_after_a_step_that_is_not_finite_keeps_nothing(tmp_path, undisturbed):
    def batch(epoch, step):
        if (epoch, step) == (2, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        return number(epoch, step) * (float("nan") if (epoch, step) == (2, 1) else 1)

    with pytest.raises(FloatingPointError, match="epoch 2, batch 2"), stoppable():
        train_toy(tmp_path, batch=batch)
    assert not (tmp_path / "kept.cut").exists()
    assert train_toy(tmp_path) == undisturbed


def test_what_is_deleted_is_never_taken_for_damaged(tmp_path, undisturbed, monkeypatch, capsys):
    """A checkpoint that isn't needed any more is moved away whole; half of it may be left by a kill."""
    rmtree = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path, **kwargs: None)
        train_toy(tmp_path, epochs=6, validate=lambda epoch: {"validation_loss": epoch})
    gone = tmp_path / "kept" / "unneeded"
    assert sorted(p.name for p in gone.iterdir()) == ["3", "4"]  # kept are the best two and the latest two
    rmtree(gone / "3" / "metrics")
    checkpoints = Checkpoints(tmp_path / "kept", "segmenter", 2)
    assert checkpoints.latest() == 6 and not gone.exists()
    checkpoints.close()
    assert "damaged" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "signum"),
    [
        ((1, 0), signal.SIGTERM),
        ((1, 2), signal.SIGTERM),
        ((2, 0), signal.SIGUSR1),
        ((2, 3), signal.SIGTERM),
        ((3, 3), signal.SIGINT),
    ],
)
def test_a_stop_keeps_the_steps_that_are_done(tmp_path, undisturbed, place, signum):
    with (
        pytest.raises(Stopped, match=f"{signum.name} in epoch {place[0]} of segmenter SA") as stop,
        stoppable(),
    ):
        train_toy(tmp_path, batch=signalling(place, signum))
    assert stop.value.exit_code == (130 if signum == signal.SIGINT else 75)
    made = []

    def counted(state, x):
        made.append(None)
        return double_and_add(state, x)

    assert train_toy(tmp_path, step=counted) == undisturbed
    before = STEPS * (place[0] - 1) + place[1]
    assert len(made) == 3 * STEPS - before
    assert not (tmp_path / "kept.cut").exists()


def test_a_stop_during_validation_keeps_the_epoch(tmp_path, undisturbed):
    def validate(epoch):
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"validation_loss": 1 / epoch}

    with pytest.raises(Stopped, match="in epoch 2"), stoppable():
        train_toy(tmp_path, validate=validate)
    made = []

    def counted(state, x):
        made.append(None)
        return double_and_add(state, x)

    assert train_toy(tmp_path, step=counted) == undisturbed
    assert len(made) == STEPS


def test_two_stops_in_one_epoch_and_on_several_devices(tmp_path, undisturbed):
    for place in ((2, 0), (2, 2)):
        with pytest.raises(Stopped), stoppable():
            train_toy(tmp_path, batch=signalling(place))
    assert train_toy(tmp_path) == undisturbed

    spread = jax.pmap(double_and_add, in_axes=(0, None), devices=jax.devices()[:2])
    with pytest.raises(Stopped), stoppable():
        train_toy(tmp_path / "two", batch=signalling((2, 1)), step=spread, devices=2)
    weight, journal = train_toy(tmp_path / "one")
    assert weight == undisturbed[0] and [r["epoch"] for r in journal] == [1, 2, 3]


def stopped_while_reading(read):
    """As TensorStore has it: what a signal raises while arrays are read comes out as an error of another kind."""

    def reading(*args, **kwargs):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:
            raise ValueError("Encountered error while reading array") from error
        return read(*args, **kwargs)

    return reading


@pytest.mark.parametrize("reader", [ocp.CheckpointManager, ocp.Checkpointer])
def test_a_stop_while_a_checkpoint_is_read_does_not_look_like_damage(
    tmp_path, undisturbed, monkeypatch, capsys, reader
):
    with pytest.raises(Stopped), stoppable():
        train_toy(tmp_path, batch=signalling((2, 1)))
    with monkeypatch.context() as patched:
        patched.setattr(reader, "restore", stopped_while_reading(reader.restore))
        with pytest.raises(Stopped), stoppable():
            train_toy(tmp_path)
    steps = []
    assert train_toy(tmp_path, batch=lambda *at: (steps.append(at), number(*at))[1]) == undisturbed
    assert "damaged" not in capsys.readouterr().out and not (tmp_path / "kept.damaged").exists()
    assert len(steps) == 2 * STEPS


def test_an_epoch_cut_short_whose_state_is_damaged_starts_again(tmp_path, undisturbed, capsys):
    with pytest.raises(Stopped), stoppable():
        train_toy(tmp_path, batch=signalling((2, 1)))
    flip_a_bit(max((tmp_path / "kept.cut").rglob("d/*"), key=lambda p: p.stat().st_size))
    assert train_toy(tmp_path) == undisturbed
    assert "epoch 2 starts from its beginning" in capsys.readouterr().out


TOY = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.train.toy import number, train_toy
from qcjax.runtime.exits import exit_code

def slow(epoch, step):
    print("step", flush=True)
    time.sleep(0.1)
    return number(epoch, step)

sys.exit(exit_code(lambda: train_toy(Path({out!r}), epochs=100, batch=slow)))
"""


@pytest.mark.parametrize(("code", "expected"), [(None, 75), ("99", 99)])
def test_the_exit_code_asks_the_scheduler_to_start_the_job_again(tmp_path, code, expected):
    environment = os.environ | ({} if code is None else {"QCJAX_REQUEUE_EXIT_CODE": code})
    script = TOY.format(tests=str(Path(__file__).parents[2]), out=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    for _ in range(6):  # the second epoch
        while process.stdout.readline().strip() != "step":
            pass
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == expected
    assert "stopped by SIGTERM in epoch 2 of segmenter SA; started again" in said and "Traceback" not in said
    assert (tmp_path / "kept.cut").is_dir()


def nan_at(place):
    return lambda epoch, step: number(epoch, step) * (float("nan") if (epoch, step) == place else 1)


@pytest.mark.parametrize(("step", "good"), [(0, 1), (2, 1), (3, 1)])
def test_a_loss_that_is_not_finite_names_epoch_batch_cases_and_checkpoint(tmp_path, step, good):
    names = lambda epoch, i: [f"case{epoch}{i}", "other"]  # noqa: E731
    expected = (
        rf"segmenter SA: epoch 2, batch {step + 1} \(cases case2{step}, other\): loss nan, grad_norm nan found.*"
        rf"last good checkpoint is that of epoch {good}.*--on-nonfinite skip"
    )
    with pytest.raises(FloatingPointError, match=expected):
        train_toy(tmp_path, batch=nan_at((2, step)), cases=names)
    with pytest.raises(FloatingPointError, match="epoch 1.*checkpoint is none yet"):
        train_toy(tmp_path / "first", batch=nan_at((1, 0)))


def test_going_on_after_such_a_stop_is_as_if_it_never_was(tmp_path, undisturbed):
    with pytest.raises(FloatingPointError):
        train_toy(tmp_path, batch=nan_at((2, 1)))
    assert train_toy(tmp_path) == undisturbed


def test_batches_that_are_not_finite_are_left_out_and_counted(tmp_path, capsys):
    step = jax.jit(skip_nonfinite(double_and_add), donate_argnums=(0,))
    weight, journal = train_toy(tmp_path, batch=nan_at((2, 1)), step=step)
    assert [r["skipped_batches"] for r in journal] == [0, 1, 0]
    assert "batches left out 1" in capsys.readouterr().out
    w, means = 0.0, []
    for epoch in (1, 2, 3):
        losses = []
        for i in range(STEPS):
            if (epoch, i) != (2, 1):
                x = float(number(epoch, i))
                w = 2 * w + x
                losses.append(x / w)
        means.append(np.mean(losses))
    assert weight == pytest.approx(w, rel=1e-6)
    np.testing.assert_allclose([r["train_loss"] for r in journal], means, rtol=1e-6)


def test_a_skipped_step_leaves_every_part_of_the_state(tmp_path):
    state = {"a": jnp.arange(3.0), "b": jnp.int32(7)}

    def update(state, x):
        metrics = {"loss": jnp.float32(1), "grad_norm": x}
        return {"a": state["a"] * x, "b": state["b"] + 1}, metrics

    for x, skipped in ((jnp.inf, True), (jnp.nan, True), (2.0, False)):
        after, metrics = jax.jit(skip_nonfinite(update))(state, jnp.float32(x))
        assert bool(metrics["skipped"]) == skipped
        np.testing.assert_array_equal(after["a"], state["a"] * (1 if skipped else 2))
        assert int(after["b"]) == (7 if skipped else 8)


def test_devices_leave_a_batch_out_together():
    def update(state, x):
        return state + 1, {"loss": x, "grad_norm": x}

    guarded = jax.pmap(skip_nonfinite(update, "devices"), axis_name="devices", devices=jax.devices()[:2])
    after, metrics = guarded(jnp.zeros(2), jnp.array([1.0, jnp.nan]))
    np.testing.assert_array_equal(after, [0, 0])
    assert metrics["skipped"].all()


def test_an_epoch_of_which_every_batch_is_left_out_stops_the_run(tmp_path):
    step = jax.jit(skip_nonfinite(double_and_add))
    with pytest.raises(FloatingPointError, match="the training loss of epoch 1 is nan"):
        train_toy(tmp_path, batch=lambda epoch, i: jnp.float32(jnp.inf), step=step)


def test_the_option_reaches_the_networks_and_the_cases_have_names(make_arm):
    arm = make_arm()
    config = replace(arm.networks.config, on_nonfinite="skip")
    step = Networks(config, "nnunet", Devices(1)).autoencoder_step
    plan = arm.plan(config.autoencoder.steps, config.autoencoder.batch, 1)
    batch = arm.networks.take(arm.data.slices, plan.indices[0], plan.weight[0] * np.nan)
    before = jax.device_get(arm.state("autoencoder"))
    after, metrics = step(arm.state("autoencoder"), batch, jax.random.key(0), np.float32(1), np.bool_(False))
    assert bool(metrics["skipped"]) and not np.isfinite(metrics["loss"])
    chex.assert_trees_all_equal(before, jax.device_get(after))
    names = arm.data.names(plan, 0)
    assert 1 <= len(names) <= config.autoencoder.batch and set(names) <= {
        c.name for c in arm.data.training.cases
    }


def flip_a_bit(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1 << 3
    path.write_bytes(bytes(data))


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(scope="module")
def stopped_after_two(tmp_path_factory):
    """A stage that has two of its three epochs."""
    folder = tmp_path_factory.mktemp("two")
    train_toy(folder, epochs=2)
    return folder


def files_of_a_checkpoint(folder):
    return sorted(
        p.relative_to(folder / "kept" / "2") for p in (folder / "kept" / "2").rglob("*") if p.is_file()
    )


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off, Path.unlink], ids=["bit flip", "cut short", "lost"])
def test_a_damaged_file_of_the_latest_checkpoint_makes_no_difference(
    tmp_path, stopped_after_two, undisturbed, damage, capsys
):
    """Each file in turn: either nothing is missing, or training goes on from the one before, with a warning."""
    capsys.readouterr()
    kinds = set()
    for i, name in enumerate(files_of_a_checkpoint(stopped_after_two)):
        copy = Path(shutil.copytree(stopped_after_two, tmp_path / str(i)))
        damage(copy / "kept" / "2" / name)
        assert train_toy(copy) == undisturbed
        said = capsys.readouterr().out
        fell_back = "epoch 1 of 3 is done" in said
        assert fell_back == ("a damaged checkpoint" in said) == (copy / "kept.damaged" / "2").is_dir()
        assert fell_back or "epoch 2 of 3 is done" in said
        kinds.add(fell_back)
    assert True in kinds


@pytest.mark.parametrize("seed", range(3))
def test_bits_flipped_anywhere_in_the_arrays_are_noticed(tmp_path, stopped_after_two, undisturbed, seed):
    rng = np.random.default_rng(seed)
    copy = Path(shutil.copytree(stopped_after_two, tmp_path / "copy"))
    for path in (copy / "kept" / "2").rglob("*"):
        if path.is_file() and path.stat().st_size:
            flip_a_bit(path, rng.random())
    assert train_toy(copy) == undisturbed


def test_all_checkpoints_damaged_starts_from_the_beginning(tmp_path, stopped_after_two, undisturbed, capsys):
    copy = Path(shutil.copytree(stopped_after_two, tmp_path / "copy"))
    for epoch in ("1", "2"):
        flip_a_bit(max((copy / "kept" / epoch).rglob("d/*"), key=lambda p: p.stat().st_size))
    assert train_toy(copy) == undisturbed
    assert "there is no earlier one" in capsys.readouterr().out


def test_a_damaged_candidate_is_made_again(tmp_path, undisturbed):
    """The best model, long before the latest: what came after it is set aside too, and trained again."""
    loss = {1: 0.9, 2: 0.1, 3: 0.8, 4: 0.7, 5: 0.6}
    validate = lambda epoch: {"validation_loss": loss[epoch]}  # noqa: E731
    whole = train_toy(tmp_path, epochs=5, validate=validate)
    flip_a_bit(max((tmp_path / "kept" / "2").rglob("d/*"), key=lambda p: p.stat().st_size))
    checkpoints = Checkpoints(tmp_path / "kept", "segmenter", 2)
    best = checkpoints.candidates()[0]
    template = {"w": jnp.zeros(2)}
    assert best.epoch == 2
    with pytest.raises(ValueError, match="another configuration"):
        checkpoints.restore(2, state=template)
    with pytest.raises(DamagedCheckpoint, match="moved.*with the later 4, 5.*started again, the run goes on"):
        from qcjax.train.state import TrainState

        checkpoints.restore(2, state=TrainState(jnp.int32(0), {"w": jnp.zeros(2)}, {}, {}))
    checkpoints.close()
    assert train_toy(tmp_path, epochs=5, validate=validate) == whole
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["2", "4", "5"]


def test_a_line_lost_from_the_journal_is_made_again(tmp_path, undisturbed, capsys):
    train_toy(tmp_path)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b"\xff\xfe" + lines[1][2:]
    path.write_bytes(b"".join(lines))
    assert train_toy(tmp_path) == undisturbed
    assert "epoch 2 is missing from metrics.jsonl" in capsys.readouterr().out


def test_a_checkpoint_of_another_configuration_is_refused_with_what_differs(tmp_path, stopped_after_two):
    copy = Path(shutil.copytree(stopped_after_two, tmp_path / "copy"))
    with pytest.raises(
        ValueError, match=r"another configuration.*params/w of \(2,\) float32 \(now \(3,\) float32\)"
    ):
        train_toy(copy, width=3)
    assert files_of_a_checkpoint(copy) == files_of_a_checkpoint(stopped_after_two)  # nothing was touched


def test_saving_does_not_hold_training_up(tmp_path, monkeypatch):
    """While one checkpoint is being written, the next steps run; the one after waits for it."""
    checkpoints, write, may_write = (
        Checkpoints(tmp_path / "kept", "segmenter", 2),
        Checkpoints._write,
        threading.Event(),
    )

    def slow(self, *args):
        assert may_write.wait(30)
        write(self, *args)

    monkeypatch.setattr(Checkpoints, "_write", slow)
    state = {"w": jnp.ones(3)}
    started = time.monotonic()
    checkpoints.save(1, {"validation_loss": 1.0}, state=state)
    state["w"].delete()  # as the next, donated step does
    assert time.monotonic() - started < 5
    assert not (tmp_path / "kept" / "1").exists()
    assert [c.epoch for c in checkpoints.candidates()] == [1]
    may_write.set()
    assert checkpoints.latest() == 1
    np.testing.assert_array_equal(checkpoints.restore(1, state={"w": jnp.zeros(3)})["state"]["w"], np.ones(3))
    checkpoints.close()


def test_the_time_that_saving_costs_is_in_the_journal(tmp_path, capsys):
    train_toy(tmp_path)
    records = Journal(tmp_path / "metrics.jsonl").read()
    assert all(0 <= r["save_seconds"] <= r["seconds"] for r in records)
    assert capsys.readouterr().out.count("saving 0.") == 3


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_a_message_and_room_lets_it_go_on(tmp_path, undisturbed, small_disk):
    train_toy(small_disk, epochs=1)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "something else").write_bytes(bytes(free))
    with pytest.raises(OSError, match="(?i)no space left"):
        train_toy(small_disk)
    (small_disk / "something else").unlink()
    assert train_toy(small_disk) == undisturbed


def test_a_checkpoint_that_cannot_be_written_is_told_of_at_the_next_epoch(tmp_path, undisturbed, monkeypatch):
    def full(self, epoch, *args, **kwargs):
        (self.directory / f"{epoch}.orbax-checkpoint-tmp").mkdir()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("orbax.checkpoint.CheckpointManager.save", full)
        with pytest.raises(
            OSError, match="checkpoint of epoch 1 could not be written.*No space left.*epoch 0"
        ):
            train_toy(tmp_path)
    assert train_toy(tmp_path) == undisturbed
    assert not list((tmp_path / "kept").glob("*tmp*"))


def test_a_kill_while_a_checkpoint_is_written_leaves_nothing_that_counts(tmp_path, undisturbed):
    train_toy(tmp_path, epochs=1)
    half = tmp_path / "kept" / "2.orbax-checkpoint-tmp-1"
    shutil.copytree(tmp_path / "kept" / "1", half)
    assert train_toy(tmp_path) == undisturbed
    assert not half.exists()


CACHED = """
import sys
import jax
import jax.numpy as jnp
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(float(jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x))(jnp.arange(100.0))))
"""


def test_a_damaged_compilation_cache_is_compiled_again(tmp_path):
    if "zstandard" in sys.modules or sys.version_info >= (3, 14):
        pytest.skip("with zstandard JAX keeps no checksums")

    def compiled():
        done = subprocess.run([sys.executable, "-c", CACHED, str(tmp_path)], capture_output=True, text=True)
        assert done.returncode == 0
        return done.stdout, done.stderr

    value, _ = compiled()
    kept = sorted(tmp_path.glob("*-cache"))
    for path in kept:
        flip_a_bit(path)
    again, said = compiled()
    assert kept and again == value and "Error reading persistent compilation cache entry" in said


HUNGRY = """
import resource
import sys
import jax.numpy as jnp
from qcjax.runtime.exits import exit_code

jnp.zeros(3).block_until_ready()

def run():
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
    jnp.ones((2**14, 2**14, 16)).block_until_ready()

sys.exit(exit_code(run))
"""


def test_a_device_without_enough_memory_gives_a_message():
    done = subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        "error: out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes" in done.stderr
    )


def test_metrics_of_steps_are_averaged():
    def step(state, x):
        return state + x, {"loss": jnp.float32(x), "other": jnp.float32(2 * x)}

    taken = run_steps(step, 0, [(1,), (2,), (6,)])
    assert taken.state == 9 and taken.means == {"train_loss": 3.0, "train_other": 6.0}
    np.testing.assert_array_equal(taken.metrics["other"], [2, 4, 12])


def test_the_journal_of_one_stage_knows_its_gaps(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    for epoch in (1, 3):
        journal.append(ONE | {"epoch": epoch})
    journal.append({"stage": "other", "epoch": 2})
    assert journal.gap(ONE, 4) == 2 and journal.gap(ONE, 2) is None
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0]) == ONE | {"epoch": 1}
