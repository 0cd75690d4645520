"""What processes tell each other, as bytes: JSON with arrays behind it, so that reading it executes nothing.

Numbers, text, bytes, None, paths, lists, tuples, sets, dictionaries, arrays, and objects of the classes that say
`@sendable` where they are defined. An error goes as the name of its class, from a closed list, and its text.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import ml_dtypes
import numpy as np

T = TypeVar("T", bound=type)

_LENGTH = 8  # bytes of the JSON's length, in front of it
_KINDS = "biufcSUmM"  # of arrays: numbers, text, times; no objects
_classes: dict[str, type] = {}
_errors: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        ArithmeticError,
        AssertionError,
        ConnectionError,
        FileExistsError,
        FileNotFoundError,
        FloatingPointError,
        ImportError,
        IndexError,
        KeyError,
        MemoryError,
        NotImplementedError,
        OSError,
        OverflowError,
        PermissionError,
        RuntimeError,
        TimeoutError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    )
}


def sendable(kind: T) -> T:
    """A class decorator: objects of this dataclass, NamedTuple, or exception made of its text may be sent."""
    if issubclass(kind, Exception):
        _errors[kind.__name__] = kind
    elif is_dataclass(kind) or hasattr(kind, "_fields"):
        _classes[f"{kind.__module__}.{kind.__qualname__}"] = kind
    else:
        raise TypeError(f"{kind.__qualname__} found, expected a dataclass, a NamedTuple or an exception")
    return kind


def pack(value: Any) -> bytes:
    """A value as bytes, for `unpack`.

    Raises TypeError for an object of another class than the module's docstring lists.
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_encoded(value, arrays)).encode()
    return b"".join((len(text).to_bytes(_LENGTH, "little"), text, *(x.tobytes() for x in arrays)))


def unpack(data: bytes) -> Any:
    """The value that `pack` was given; arrays are NumPy's, wherever they were.

    Raises ValueError for bytes that `pack` didn't make.
    """
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    try:
        return _decoded(json.loads(data[_LENGTH:end].decode()), memoryview(data)[end:])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"a message that can't be read ({type(error).__name__}: {error})") from None


def error_parts(error: Exception) -> tuple[str, str]:
    """An error as the name of a class of the closed list, the nearest of its own and its bases, and its text."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    for kind in type(error).__mro__:
        if _errors.get(kind.__name__) is kind:
            return kind.__name__, text
    return RuntimeError.__name__, f"{type(error).__name__}: {text}"


def error_of(name: str, text: str) -> Exception:
    """The error that `error_parts` took apart. Raises ValueError for a class that isn't in the list."""
    if name not in _errors:
        raise ValueError(f"an error of class {name!r} found, expected one of {', '.join(sorted(_errors))}")
    return _errors[name](text)


def _encoded(value: Any, arrays: list[np.ndarray]) -> Any:
    """JSON for a value: what JSON has no name for as {kind: content}; arrays are appended."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    inner: Callable[[Any], list[Any]] = lambda items: [_encoded(item, arrays) for item in items]  # noqa: E731
    kind = type(value)
    if kind in (list, tuple, set, frozenset):
        return {kind.__name__: inner(value)}
    if kind is dict:
        return {"dict": [inner(pair) for pair in value.items()]}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, Path):
        return {"Path": str(value)}
    name = f"{kind.__module__}.{kind.__qualname__}"
    if _classes.get(name) is kind:
        names = [f.name for f in fields(value)] if is_dataclass(value) else value._fields
        return {"object": [name, inner(getattr(value, n) for n in names)]}
    if isinstance(value, np.generic | np.ndarray) or (
        hasattr(value, "__array__") and hasattr(value, "dtype")
    ):
        return _encoded_array(np.asarray(value), isinstance(value, np.generic), arrays)
    raise TypeError(f"{name} found, expected plain values, arrays, paths, or a class that is sendable")


def _encoded_array(x: np.ndarray, scalar: bool, arrays: list[np.ndarray]) -> Any:
    bfloat16 = x.dtype == ml_dtypes.bfloat16
    if not bfloat16 and x.dtype.kind not in _KINDS:
        raise TypeError(f"an array of {x.dtype} found, expected numbers, text or times")
    start = sum(before.nbytes for before in arrays)
    arrays.append(x)
    dtype = "bfloat16" if bfloat16 else x.dtype.str
    return {"scalar" if scalar else "array": [dtype, list(x.shape), start]}


def _decoded(found: Any, arrays: memoryview) -> Any:
    if not isinstance(found, dict):
        if isinstance(found, list):
            raise ValueError("a list without a kind")
        return found
    ((kind, content),) = found.items()
    inner: Callable[[Any], list[Any]] = lambda items: [_decoded(item, arrays) for item in items]  # noqa: E731
    match kind:
        case "list":
            return inner(content)
        case "tuple":
            return tuple(inner(content))
        case "set":
            return set(inner(content))
        case "frozenset":
            return frozenset(inner(content))
        case "dict":
            return dict(inner(pair) for pair in content)
        case "bytes":
            return base64.b64decode(content, validate=True)
        case "Path":
            return Path(content)
        case "object":
            name, values = content
            return _classes[name](*inner(values))
        case "array" | "scalar":
            dtype, shape, start = content
            x = _decoded_array(dtype, shape, start, arrays)
            return x[()] if kind == "scalar" else x
    raise ValueError(f"a value of kind {kind!r}")


def _decoded_array(dtype: str, shape: list[int], start: int, arrays: memoryview) -> np.ndarray:
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(str(dtype))
    count = int(np.prod(shape, dtype=object))
    if (kind.kind not in _KINDS and dtype != "bfloat16") or min(shape, default=0) < 0 or start < 0:
        raise ValueError(f"an array of {shape} {dtype} at {start}")
    part = arrays[start : start + count * kind.itemsize]
    if len(part) != count * kind.itemsize:
        raise ValueError(f"{len(part)} bytes of an array of {shape} {dtype}")
    return np.frombuffer(bytearray(part), kind, count).reshape(shape)  # one's own, and can be written to
