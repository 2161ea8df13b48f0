"""What a script does with its loss on the way from validation to `val_loss:`: whether a number of its own moves it.

Only the standard library is imported here: this runs in the guarded process of `worker`.
"""

import ast

from harness.referee.source.flow import CHOOSERS, GIVING, SIGNS, Numbers, given_in, key_of, printed_behind
from harness.referee.source.names import Names
from harness.referee.source.nodes import plain

_TAKEN_ALONG = {"builtins.float", "builtins.round", "builtins.sum", *CHOOSERS}


def loss_facts(names: Names) -> dict:
    """`loss`: [sign, number, module, line] wherever what is printed behind `val_loss:` is moved by a number, or
    multiplied with, divided by or held against one that is not whole. A mean is taken over whole numbers of batches."""
    return {"loss": [list(each) for each in dict.fromkeys(_Trail(names).found)]}


class _Trail:
    """The expressions that a printed loss goes through, followed back by sums, products and names."""

    def __init__(self, names: Names):
        self.names, self.numbers, self.found = names, Numbers(names), []
        self.given: dict[object, list[tuple[ast.AST, ast.AST]]] = {}
        for node in names.of(*GIVING):
            for known_by, value in given_in(names, node):
                self.given.setdefault(known_by, []).append((node, value))
        self.seen: set = set()
        self.ahead = [each for text in names.of(ast.JoinedStr) for each in printed_behind("val_loss:", text)]
        while self.ahead:
            self.read(self.ahead.pop())

    def read(self, node: ast.AST) -> None:
        """Note what an expression reckons with, and set out for what it is made of."""
        if isinstance(node, ast.BinOp):
            self.reckons(node, node.op, (node.left, node.right))
            self.ahead += [node.left, node.right]
        elif isinstance(node, ast.IfExp):
            self.ahead += [node.body, node.orelse]
        elif isinstance(node, ast.Call):
            self.call(node)
        elif isinstance(node, (ast.Name, ast.Attribute)):
            self.follow(key_of(self.names, node))

    def call(self, node: ast.Call) -> None:
        functions = self.names.resolve(node.func)
        if functions & CHOOSERS:
            for number in filter(self.moves, node.args):
                self.note(f"in {plain(node.func)}() with", number, node)
        if functions & _TAKEN_ALONG:
            self.ahead += node.args
        elif isinstance(node.func, ast.Attribute):
            self.ahead.append(node.func.value)  # a method of the loss: .item(), .mean()
        self.follow(("def", plain(node.func)))

    def follow(self, known_by: object) -> None:
        """What is given to a name, an attribute or, by `return`, to a call."""
        if known_by in self.seen:
            return
        self.seen.add(known_by)
        for statement, value in self.given.get(known_by, ()):
            if isinstance(statement, ast.AugAssign):
                self.reckons(statement, statement.op, (value,))
            self.ahead.append(value)

    def reckons(self, node: ast.AST, operation: ast.operator, sides: tuple[ast.AST, ...]) -> None:
        for side in sides:
            adds = isinstance(operation, (ast.Add, ast.Sub))
            if self.numbers.value(side) if adds else self.moves(side):
                self.note(SIGNS.get(type(operation), "?"), side, node)

    def moves(self, side: ast.AST) -> bool:
        value = self.numbers.value(side)
        return value is not None and value % 1 != 0

    def note(self, sign: str, number: ast.AST, node: ast.AST) -> None:
        self.found.append((sign, float(self.numbers.value(number)), self.names.module_of(node), node.lineno))
