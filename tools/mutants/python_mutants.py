# SPDX-License-Identifier: Apache-2.0
"""Small defects in Python sources, by operators over the syntax tree."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["PythonMutant", "apply", "mutants_of"]


class PythonMutant(NamedTuple):
    """A defect: the node's number in the walk of the tree, and the variant of the operator there."""

    file: str
    line: int
    lines: tuple[int, int]  # the first and the last one of the statement, of a block those of its header
    node: int
    variant: int
    what: str


_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
}  # fmt: skip


#: three words and more are a sentence for people: its wording is no behaviour
_PROSE = re.compile(r"[A-Za-z]{2,},? [a-z`']+,? [a-z`']+")


def _constant(value: object) -> list[ast.expr]:
    if isinstance(value, bool):
        return [ast.Constant(not value)]
    if isinstance(value, int):
        return [ast.Constant(value + 1), ast.Constant(value - 1)]
    if isinstance(value, str) and value and not _PROSE.search(value):
        return [ast.Constant(value + "x")]
    return []


def _of_expression(node: ast.expr) -> list[ast.expr]:
    changed: ast.expr = copy.deepcopy(node)
    if isinstance(changed, ast.Compare) and type(changed.ops[0]) in _COMPARE:
        changed.ops[0] = _COMPARE[type(changed.ops[0])]()
        return [changed]
    if isinstance(changed, ast.BinOp) and type(changed.op) in _BINARY:
        changed.op = _BINARY[type(changed.op)]()
        return [changed]
    if isinstance(changed, ast.BoolOp):
        changed.op = ast.Or() if isinstance(changed.op, ast.And) else ast.And()
        shorter = copy.deepcopy(node)
        assert isinstance(shorter, ast.BoolOp)
        return [changed, shorter.values[0]]
    if isinstance(changed, ast.UnaryOp) and isinstance(changed.op, ast.Not):
        return [changed.operand]
    if isinstance(changed, ast.IfExp):
        return [changed.body, changed.orelse]
    if isinstance(changed, ast.Constant):
        return _constant(changed.value)
    return []


def _of_statement(node: ast.stmt) -> list[ast.stmt]:
    if isinstance(node, ast.Return) and node.value is not None:
        return [] if _is_none(node.value) else [ast.Return(ast.Constant(None))]
    if isinstance(node, (ast.Raise, ast.AugAssign, ast.Continue, ast.Break)):
        return [ast.Pass()]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return [ast.Pass()]
    if isinstance(node, ast.If):
        never, always = copy.deepcopy(node), copy.deepcopy(node)
        never.test, always.test = ast.Constant(value=False), ast.Constant(value=True)
        return [never, always]
    return []


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _variants(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.expr):
        return [*_of_expression(node)]
    return [*_of_statement(node)] if isinstance(node, ast.stmt) else []


class _Skip(ast.NodeVisitor):
    """Nodes that no test can judge: docstrings, annotations, messages, `__all__`, `TYPE_CHECKING`."""

    def __init__(self) -> None:
        self.nodes: set[int] = set()

    def _leave_out(self, *nodes: ast.AST | None) -> None:
        for top in nodes:
            if top is not None:
                self.nodes.update(id(node) for node in ast.walk(top))

    def generic_visit(self, node: ast.AST) -> None:
        """Note what is left out, and go on."""
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            self._leave_out(node.value)
        if isinstance(node, (ast.arg, ast.AnnAssign)):
            self._leave_out(node.annotation)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._leave_out(node.returns)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self._leave_out(*node.decorator_list)  # `frozen`: no code assigns, by the type checker
        if isinstance(node, ast.Raise):
            self._leave_out(node.exc)
        if isinstance(node, ast.JoinedStr):
            self._leave_out(node)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            self._leave_out(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            self._leave_out(node)
        super().generic_visit(node)


def mutants_of(path: Path, root: Path) -> Iterator[PythonMutant]:
    """Yields every defect that the operators know in a source file."""
    tree = ast.parse(path.read_text())
    skip = _Skip()
    skip.visit(tree)
    lines = _statements(tree)
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in skip.nodes:
            continue
        for variant, changed in enumerate(_variants(node)):
            what = f"{_shown(node)} -> {_shown(changed)}"
            line = getattr(node, "lineno", 0)
            yield PythonMutant(str(path.relative_to(root)), line, lines[id(node)], number, variant, what)


def _statements(tree: ast.AST) -> dict[int, tuple[int, int]]:
    """Returns the lines of the statement that each node is in."""
    found: dict[int, tuple[int, int]] = {id(tree): (0, 0)}
    for node in ast.walk(tree):  # parents before children
        mine = found[id(node)]
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if isinstance(body, list) else node.end_lineno
            mine = found[id(node)] = (node.lineno, max(node.lineno, last or 0))
        found.update((id(child), mine) for child in ast.iter_child_nodes(node))
    return found


def _shown(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())[:60]


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """Returns the other node in place of the one."""
        return ast.copy_location(self._new, node) if node is self._old else self.generic_visit(node)


def apply(mutant: PythonMutant, text: str) -> str:
    """Returns the source with the defect; comments are lost."""
    tree = ast.parse(text)
    node = next(one for number, one in enumerate(ast.walk(tree)) if number == mutant.node)
    changed = _Replace(node, _variants(node)[mutant.variant]).visit(tree)
    return ast.unparse(ast.fix_missing_locations(changed)) + "\n"
