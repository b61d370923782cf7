"""Which settings the product reads: attribute accesses, each resolved to the section it is made on.

Types are followed as far as names carry them: annotations of parameters, variables, fields and results, `self`, and
assignments. A class is known by its name alone, so that two of one name are taken as one.
"""

import ast
import typing
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, TypeAlias, TypeGuard

from config.model import Settings
from tests.house import sources

Types: TypeAlias = set[str]
"""Names of classes that a value may be of."""
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

_SECTIONS: Final = {
    name: hint.__name__ for name, hint in typing.get_type_hints(Settings).items() if hasattr(hint, "__struct_fields__")
}
_LEAVES: Final = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop)
"""Nothing is read in them."""
_FUNCTIONS: Final = "()"
"""Whose fields are the results of functions."""
_ROUNDS: Final = 3
"""Fields that are assigned from fields of other classes need as many passes as they are deep."""


def reads(modules: Iterable[str], known: Iterable[str] = ()) -> set[str]:
    """Keys of the settings that are read somewhere in the code of these modules; those of `known` only tell types."""
    trees, others = sources.trees(modules), sources.trees(known)
    fields: dict[str, dict[str, Types]] = defaultdict(lambda: defaultdict(set))
    for section, name in _SECTIONS.items():
        fields["Settings"][section].add(name)
    for _ in range(_ROUNDS):
        found: set[tuple[str, str]] = set()
        for tree in others:
            _Module(fields, set()).visit(tree)
        for tree in trees:
            _Module(fields, found).visit(tree)
    sections = {"Settings": [""]} | {
        name: [f"{section}." for section, other in _SECTIONS.items() if other == name] for name in _SECTIONS.values()
    }
    return {f"{section}{attribute}" for name, attribute in found for section in sections.get(name, ())}


class _Module(ast.NodeVisitor):
    def __init__(self, fields: dict[str, dict[str, Types]], found: set[tuple[str, str]]) -> None:
        self._fields = fields
        self._found = found
        self._class = ""
        self._scopes: list[dict[str, Types]] = [{}]

    def generic_visit(self, node: ast.AST) -> None:
        for name in node._fields:
            match getattr(node, name):
                case list() as several:
                    for each in several:
                        if isinstance(each, ast.AST) and not isinstance(each, _LEAVES):
                            self.visit(each)
                case ast.AST() as one if not isinstance(one, _LEAVES):
                    self.visit(one)
                case _:
                    pass

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self._class = self._class, node.name
        for base in node.bases:
            for attribute, types in [*self._fields[ast.unparse(base).rpartition(".")[2]].items()]:
                self._fields[node.name][attribute] |= types
        self.generic_visit(node)
        self._class = outer

    def visit_FunctionDef(self, node: Function) -> None:
        if node.returns is not None:
            self._fields[self._class or _FUNCTIONS][node.name] |= _mentioned(node.returns)
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        scope = {each.arg: _mentioned(each.annotation) for each in arguments if each.annotation is not None}
        if self._class and arguments and arguments[0].arg == "self":
            scope["self"] = {self._class}
        self._scopes.append(scope)
        self.generic_visit(node)
        self._scopes.pop()

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._note(node.target, _mentioned(node.annotation))
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = [*zip(target.elts, node.value.elts, strict=False)]
            for name, value in pairs:
                self._note(name, self._types(value))
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        walked = set().union(*(self._types(part) for part in ast.walk(node.iter) if _is_chain(part)))
        for name in ast.walk(node.target):
            self._note(name, walked - {"Settings"})
        self.generic_visit(node)

    def visit_DictComp(self, node: ast.DictComp | ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        for generator in node.generators:  # they stand behind what uses their names
            self.visit(generator)
        self.generic_visit(node)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp  # noqa: N815

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self._found |= {(name, node.attr) for name in self._types(node.value)}
        self.generic_visit(node)

    def _note(self, target: ast.AST, types: Types) -> None:
        match target:
            case ast.Name(id=name) if self._class and len(self._scopes) == 1:
                self._fields[self._class][name] |= types
            case ast.Name(id=name):
                self._scopes[-1].setdefault(name, set()).update(types)
            case ast.Attribute(value=of, attr=name):
                for owner in self._types(of):
                    self._fields[owner][name] |= types
            case _:
                pass

    def _types(self, value: ast.expr) -> Types:
        match value:
            case ast.Name(id=name):
                return next((scope[name] for scope in reversed(self._scopes) if name in scope), {name})
            case ast.Attribute(value=of, attr=name):
                return set().union(*(self._fields[owner][name] for owner in self._types(of)))
            case ast.Call(func=ast.Name(id=name) as called):
                return self._types(called) | self._fields[_FUNCTIONS][name]
            case ast.Call(func=called):
                return self._types(called) | self._fields[_FUNCTIONS][getattr(called, "attr", "")]
            case _:
                return set()


def _is_chain(node: ast.AST) -> TypeGuard[ast.expr]:
    return isinstance(node, ast.Attribute | ast.Name)


def _mentioned(annotation: ast.expr) -> Types:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    names = (getattr(node, "id", None) or getattr(node, "attr", None) for node in ast.walk(annotation))
    return {name for name in names if name}
