"""What processes tell each other comes back as it went, and nothing in it can execute."""

import ast
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qcjax.data.findings import Finding, InvalidFile
from qcjax.data.subject import Case, Subject
from qcjax.runtime.messages import error_of, error_parts, pack, sendable, unpack
from qcjax.train.checksums import DamagedCheckpoint

ROOT = Path(__file__).parents[2]


@sendable
@dataclass(frozen=True)
class Found:
    name: str
    values: np.ndarray


@sendable
class Pair(NamedTuple):
    first: object
    second: object


class Unknown(NamedTuple):
    first: int


def alike(a, b):
    """Equal, of the same types all through."""
    if isinstance(a, np.ndarray | np.generic):
        assert isinstance(b, type(a)) and a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, Found):
        alike((a.name, a.values), (b.name, b.values))
    elif isinstance(a, dict):
        assert type(b) is dict and list(a) == list(b)  # their order too
        for x, y in zip(a.items(), b.items(), strict=True):
            alike(x, y)
    elif isinstance(a, list | tuple):
        assert type(a) is type(b) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            alike(x, y)
    else:
        assert type(a) is type(b) and (a == b or (a != a and b != b))


keys = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
leaves = (
    keys
    | st.floats()
    | st.from_regex(r"[a-z/.]+", fullmatch=True).map(Path)
    | st.sets(st.binary() | st.integers())
    | hnp.arrays(
        hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.boolean_dtypes() | hnp.unicode_string_dtypes(),
        hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
    )
    | st.floats(width=32).map(np.float32)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys | st.tuples(st.integers(), st.text()), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(Found, st.text(), hnp.arrays(np.float32, 2))
    ),
    max_leaves=8,
)


@given(values)
def test_what_goes_in_comes_out(value):
    alike(value, unpack(pack(value)))


def test_text_that_is_no_text_and_the_rarer_arrays():
    strided = np.arange(12).reshape(3, 4)[::-1, ::2]
    half = np.array([1, 2, np.inf], ml_dtypes.bfloat16)
    for value in ("\udc80", strided, np.asfortranarray(strided), half, np.array([], ">f8")):
        alike(value, unpack(pack(value)))
    alike(np.arange(3, dtype=np.int32), unpack(pack(jnp.arange(3))))  # on the host, wherever it was
    unpack(pack(strided))[0] = 1  # one's own


def test_subjects_and_findings_come_back():
    case = Case("001", "SA", "ED", Path("a.nii"), None)
    subject = Subject("001", "DCM", "", "train", (case,), {"SA": Path("c.nii")})
    finding = Finding("error", Path("a.nii"), "this", "that", "001")
    assert unpack(pack([subject, finding])) == [subject, finding]


@pytest.mark.parametrize(
    "value",
    [object(), Unknown(1), len, int, lambda: 0, np.array([object()]), np.dtype([("a", int)]), {1: {2: 1j}}],
)
def test_what_may_not_be_sent_is_refused(value):
    with pytest.raises(TypeError, match="found, expected"):
        pack([value])


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("executed",))


def as_message(content):
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        pickle.dumps(Bomb()),
        as_message({"object": ["os.system", ["true"]]}),
        as_message({"object": ["builtins.eval", ["1"]]}),
        as_message({"object": ["qcjax.data.subject.Case", [1]]}),
        as_message({"code": "1"}),
        as_message({"list": [], "tuple": []}),
        as_message([1]),
        as_message({"array": ["|O", [1], 0]}) + bytes(8),
        as_message({"array": ["<f8", [10**12], 0]}) + bytes(8),
        as_message({"array": ["<f8", [-1], 0]}) + bytes(8),
        as_message({"array": ["<f8", [1], -8]}) + bytes(8),
        as_message({"bytes": "?"}),
        pack({"a": np.ones(3)})[:-1],
    ],
    ids=range(15),
)
def test_what_is_no_message_is_refused_and_nothing_runs(data):
    with pytest.raises(ValueError, match="a message that can't be read"):
        unpack(data)


@given(st.binary(), st.integers(0, 200))
def test_no_bytes_do_more_than_be_refused(noise, place):
    whole = pack([Found("a", np.ones(2, np.float32)), {"b": (1, Path("c"))}])
    damaged = whole[:place] + noise + whole[place + len(noise) :]
    for data in (noise, as_message(0)[:8] + noise, damaged):
        try:
            unpack(data)
        except ValueError as error:
            assert "a message that can't be read" in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("a"), ValueError, "a"),
        (KeyError("a"), KeyError, "'a'"),
        (FileNotFoundError(2, "gone", "f"), FileNotFoundError, "[Errno 2] gone: 'f'"),
        (InvalidFile(Path("f"), "this", "that"), ValueError, "f: found this; expected that"),
        (DamagedCheckpoint("b"), DamagedCheckpoint, "b"),
        (np.linalg.LinAlgError("c"), ValueError, "c"),
        (StopIteration("d"), RuntimeError, "StopIteration: d"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_errors_come_back_by_name_and_text(error, kind, text):
    found = error_of(*unpack(pack(error_parts(error))))
    assert type(found) is kind and str(found) == text


def test_an_error_of_no_known_class_is_refused():
    with pytest.raises(ValueError, match="an error of class 'SystemExit' found, expected one of"):
        error_of("SystemExit", "0")


def test_only_records_and_exceptions_are_sendable():
    with pytest.raises(TypeError, match="expected a dataclass, a NamedTuple or an exception"):
        sendable(int)


def test_nothing_in_the_package_unpickles():
    for path in [*ROOT.glob("qcjax/**/*.py"), *ROOT.glob("experiments/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "marshal", "shelve", "multiprocessing"} & {
                str(n).split(".")[0] for n in names
            }
