"""The faults that `mutants.py` puts into a module: small changes of its syntax tree, one at a time."""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
REVERSED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
OTHER_NAMES = {
    name: other
    for a, b in (
        *(("min", "max"), ("argmin", "argmax"), ("minimum", "maximum"), ("any", "all"), ("floor", "ceil")),
        *(("sum", "mean"), ("zeros", "ones"), ("zeros_like", "ones_like"), ("nanmin", "nanmax")),
        *(("isfinite", "isnan"), ("pearson", "spearman"), ("first", "second"), ("low", "high")),
    )
    for name, other in ((a, b), (b, a))
}

# of two arguments that may be swapped
SYMMETRIC = {
    "check_label_maps",
    "dice",
    "hausdorff_distance",
    "joint_box",
    "mask_dice",
    "maximum",
    "min",
    "max",
    "minimum",
}
SYMMETRIC |= {"pearson", "spearman", "surface_distances"}


@dataclass(frozen=True)
class Mutant:
    """A part of a source and what takes its place."""

    start: int  # characters
    stop: int
    text: str

    def applied(self, source: str) -> str:
        """The source with the fault."""
        return source[: self.start] + self.text + source[self.stop :]

    def told(self, source: str) -> dict[str, object]:
        """The line and the change, for people."""
        line = source[: self.start].count("\n") + 1
        return {"line": line, "change": f"{' '.join(source[self.start : self.stop].split())} -> {self.text}"}


def mutants_of(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its code.

    Not of annotations, docstrings, decorators, what an error says, and `strict=`, which has no effect on a number.
    """
    tree = ast.parse(source)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = source.splitlines()

    def place(line: int, column: int) -> int:  # ast counts bytes
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    found = []
    for node in _counted(tree):
        start, stop = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
        for changed in _changed(node):
            text = ast.unparse(changed)
            if text == ast.unparse(node):
                continue
            found.append(Mutant(start, stop, f"({text})" if isinstance(changed, ast.expr) else text))
    return [m for m in dict.fromkeys(found) if _compiles(m.applied(source))]


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def _counted(node: ast.AST) -> Iterator[Any]:
    """The nodes that may hold a fault."""
    if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.Assert | ast.JoinedStr | ast.ClassDef):
        children: list[ast.AST] = list(node.body) if isinstance(node, ast.ClassDef) else []
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        children = [*node.args.defaults, *(d for d in node.args.kw_defaults if d), *node.body]
    elif isinstance(node, ast.AnnAssign):
        children = [node.value] if node.value else []
    elif (
        isinstance(node, ast.Assign)
        and _is_type(node.value)
        or isinstance(node, ast.keyword)
        and node.arg == "strict"
    ):
        children = []
    else:
        children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.expr | ast.AugAssign):
        yield node
    for child in children:
        yield from _counted(child)


def _is_type(node: ast.expr) -> bool:
    """E.g. ``tuple[str, int]`` or ``Callable[..., Any]``."""
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and (node.value.id[0].isupper() or node.value.id in ("tuple", "list", "dict", "set"))
        and not node.value.id.isupper()
    )


def _changed(node: Any) -> Iterator[ast.AST]:
    match node:
        case ast.Compare():
            for i, operator in enumerate(node.ops):
                for table in (COMPARISONS, REVERSED):
                    if type(operator) in table:
                        yield _with(node, ops=[*node.ops[:i], table[type(operator)](), *node.ops[i + 1 :]])
        case ast.BinOp() | ast.AugAssign() if type(node.op) in ARITHMETIC:
            yield _with(node, op=ARITHMETIC[type(node.op)]())
        case ast.BinOp(op=ast.MatMult()):
            yield _with(node, left=node.right, right=node.left)
        case ast.BoolOp():
            yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.UnaryOp():
            yield node.operand
        case ast.IfExp():
            yield _with(node, body=node.orelse, orelse=node.body)
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
        case ast.Constant(value=float()):
            yield ast.Constant(node.value * 2 if node.value else 1.0)
        case ast.Name(id=name, ctx=ast.Load()) if name in OTHER_NAMES:
            yield ast.Name(OTHER_NAMES[name], ast.Load())
        case ast.Attribute(attr=name, ctx=ast.Load()) if name in OTHER_NAMES:
            yield _with(node, attr=OTHER_NAMES[name])
        case ast.Call():
            plain = [a for a in node.args if not isinstance(a, ast.Starred)]
            if len(plain) == len(node.args):
                for i in range(1 if _name(node.func) in SYMMETRIC else 0, len(plain) - 1):
                    yield _with(node, args=[*plain[:i], plain[i + 1], plain[i], *plain[i + 2 :]])
            for i, given in enumerate(node.keywords):
                if given.arg not in (None, "strict"):
                    yield _with(node, keywords=[*node.keywords[:i], *node.keywords[i + 1 :]])


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _with(node: Any, **fields: Any) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
