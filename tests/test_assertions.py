"""Every test says something that can be false: an assert of its own, or one in a helper that it
calls."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

TESTS = Path(__file__).parent
RAISES = {"raises", "fail", "warns"}
"""Of pytest: as good as an assert."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, Function):
            yield node


def called(function: Function) -> set[str]:
    """The names of what it calls, methods by their own name."""
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    attributes = {each.attr for each in calls if isinstance(each, ast.Attribute)}
    return attributes | {each.id for each in calls if isinstance(each, ast.Name)}


def asserts(function: Function) -> bool:
    return bool(RAISES & called(function)) or any(
        isinstance(node, ast.Assert) for node in ast.walk(function)
    )


def asserting(every: Iterable[Function]) -> set[str]:
    """The names of the functions that assert, themselves or through others."""
    callers, found = defaultdict(set), set()
    for function in every:
        for name in called(function):
            callers[name].add(function.name)
        if asserts(function):
            found.add(function.name)
    new = set(found)
    while new:
        new = {caller for name in new for caller in callers[name]} - found
        found |= new
    return found


def always_true(node: ast.Assert) -> bool:
    """A constant, or a non-empty tuple, as brackets around an assert and its message make it."""
    constant = isinstance(node.test, ast.Constant) and bool(node.test.value)
    return constant or (isinstance(node.test, ast.Tuple) and bool(node.test.elts))


def test_every_test_asserts() -> None:
    """That nothing was raised is too little: code that does nothing at all raises nothing."""
    every = {path: list(functions(path)) for path in TESTS.rglob("*.py")}
    helpers = asserting(
        each
        for found in every.values()
        for each in found
        if not each.name.startswith(("test_", "__"))
    )
    silent = [
        f"{path.relative_to(TESTS)}:{each.lineno} {each.name}"
        for path, found in every.items()
        for each in found
        if path.name.startswith("test_") and each.name.startswith("test_")
        if not (asserts(each) or helpers & called(each))
    ]
    assert silent == []


def test_no_assertion_is_true_by_its_form() -> None:
    """`assert (found, "message")` holds whatever was found."""
    empty = [
        f"{path.relative_to(TESTS)}:{node.lineno}"
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(), str(path)))
        if isinstance(node, ast.Assert) and always_true(node)
    ]
    assert empty == []


def test_a_test_without_an_assertion_is_noticed() -> None:
    """The check's own proof."""
    source = """
def helper(): assert 1 == value
def through(): helper()
def nothing(): print()
def test_helped(): through()
def test_raising():
    with pytest.raises(ValueError): value()
def test_silent(): nothing()
"""
    every = [node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)]
    assert asserting(every) == {"helper", "through", "test_helped", "test_raising"}
    assert [always_true(ast.parse(text).body[0]) for text in ("assert (a, 'b')", "assert a")] == [
        True,
        False,
    ]
