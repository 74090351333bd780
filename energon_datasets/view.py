"""A View: which clips of a dataset are meant. The viewer shows, and the loader delivers, the list of `View.keys`.

    where = "motion > 5 and (camera in ('still', 'pan left') or 'dog' in caption_short) and static_share is not None"

The language is a small piece of Python's: comparisons, `and or not`, `in` (a list, or text in a column), `+ - * /`,
column names, numbers, text, `True False`, `is None`. Nothing is ever called. Numbers are 64-bit floats. A missing value
(null, NaN, infinity, a division by zero) makes what it touches unknown, and only clips for which the whole condition is
true are in the View: `not (motion < 5)` leaves out a clip without `motion`, as SQL does.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import duckdb
import pyarrow as pa

LONGEST = 4000
"""Characters of a condition."""
DEEPEST = 40
"""Brackets within brackets."""


class Kind(StrEnum):
    """What a column or a part of a condition is worth."""

    NUMBER = "a number"
    TEXT = "text"
    TRUTH = "true or false"
    NOTHING = "missing everywhere"
    OTHER = "something else"


Value = float | str | bool | None
Row = Mapping[str, Any]
Predicate = Callable[[Row], Value]


@dataclass(frozen=True)
class Column:
    name: str


@dataclass(frozen=True)
class Constant:
    value: float | str | bool


@dataclass(frozen=True)
class Arithmetic:
    sign: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Comparison:
    sign: str
    left: Node
    right: Node


@dataclass(frozen=True)
class OneOf:
    item: Node
    values: tuple[float | str, ...]
    """Sorted, each once, all of one kind."""


@dataclass(frozen=True)
class Contains:
    text: str
    column: Column


@dataclass(frozen=True)
class Missing:
    item: Node


@dataclass(frozen=True)
class Not:
    item: Node


@dataclass(frozen=True)
class And:
    items: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    items: tuple[Node, ...]


Node = Column | Constant | Arithmetic | Comparison | OneOf | Contains | Missing | Not | And | Or

ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
COMPUTE: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
GRAMMAR = "columns, numbers, text, True, False, + - * /, comparisons, in, is None, and, or, not"


class View:
    """The clips of a dataset for which `where` is true; all kept ones where it is empty."""

    def __init__(self, where: str = "") -> None:
        self.where = where
        self.node = parse(where)

    @property
    def canonical(self) -> str:
        """One spelling for conditions that differ in blanks, brackets, quotes or the form of their numbers."""
        return spell(self.node)

    @property
    def id(self) -> str:
        """sha256 of the canonical text, 64 hex digits."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    def keys(self, rows: pa.Table | Iterable[Row], status: str = "kept") -> list[str]:
        """Ids of the clips of `status` in this View, in the order of the table: what the viewer shows and the loader
        delivers. ValueError for a column that is not there or of another kind."""
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(row) for row in rows])
        kinds = kinds_of(table.schema)
        check(self.node, kinds)
        parameters: list[float | str] = []
        condition = sql(self.node, kinds, parameters)
        names = {"clip_id", "status"} | columns_of(self.node)
        clips = table.select(sorted(names)).append_column("row number", pa.array(range(len(table)), pa.int64()))
        question = f"""select clip_id from clips where status = ? and {condition} order by "row number" """
        with duckdb.connect(config={"enable_external_access": "false"}) as connection:
            connection.register("clips", clips)
            return [key for (key,) in connection.execute(question, [status, *parameters]).fetchall()]

    def predicate(self, schema: pa.Schema) -> Predicate:
        """The same condition as a function of one row: True, False, or None for unknown."""
        kinds = kinds_of(schema)
        check(self.node, kinds)
        return evaluate(self.node, kinds)

    def __repr__(self) -> str:
        return f"View({self.where!r}, id={self.id[:12]})"


def parse(where: str) -> Node:
    """The condition as a tree. ValueError that names the part which the language does not have."""
    if not where.strip():
        return Constant(True)
    if len(where) > LONGEST:
        raise ValueError(f"where is {len(where)} characters long, at most {LONGEST} are read")
    try:
        tree = ast.parse(where.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ValueError(f"where cannot be read ({reason}): {where.strip()[:200]}") from None
    return _node(tree, DEEPEST)


def _node(tree: ast.expr, depth: int) -> Node:
    if depth == 0:
        raise ValueError(f"where is nested more than {DEEPEST} deep: break it into `and`s")
    depth -= 1
    match tree:
        case ast.Name(id=name):
            return Column(name)
        case ast.Constant():
            return _constant(tree)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return Not(_node(operand, depth))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if value is not True:
            return Constant(-_number(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Arithmetic("-", Constant(0.0), _node(operand, depth))
        case ast.BinOp(op=sign) if type(sign) in ARITHMETIC:
            return Arithmetic(ARITHMETIC[type(sign)], _node(tree.left, depth), _node(tree.right, depth))
        case ast.BoolOp():
            together: type[And] | type[Or] = And if isinstance(tree.op, ast.And) else Or
            return _joined(together, [_node(value, depth) for value in tree.values])
        case ast.Compare():
            sides = [tree.left, *tree.comparators]
            pairs = zip(tree.ops, sides[:-1], sides[1:])
            return _joined(And, [_compared(sign, left, right, depth) for sign, left, right in pairs])
    raise ValueError(f"where cannot hold `{ast.unparse(tree)[:80]}`: it knows {GRAMMAR}")


def _joined(together: type[And] | type[Or], items: list[Node]) -> Node:
    flat = [part for item in items for part in (item.items if isinstance(item, together) else (item,))]
    return flat[0] if len(flat) == 1 else together(tuple(flat))


def _constant(tree: ast.Constant) -> Constant:
    if isinstance(tree.value, bool | str):
        if isinstance(tree.value, str) and "\0" in tree.value:
            raise ValueError("where holds text with a zero byte")
        return Constant(tree.value)
    if isinstance(tree.value, int | float):
        return Constant(_number(tree.value))
    raise ValueError(f"where cannot hold `{ast.unparse(tree)[:80]}` here: it knows {GRAMMAR}")


def _number(value: int | float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("where holds a number beyond 1e308")
    return number


def _compared(sign: ast.cmpop, left: ast.expr, right: ast.expr, depth: int) -> Node:
    if type(sign) in COMPARISONS:
        return Comparison(COMPARISONS[type(sign)], _node(left, depth), _node(right, depth))
    if isinstance(sign, ast.Is | ast.IsNot):
        if not (isinstance(right, ast.Constant) and right.value is None):
            raise ValueError(f"where knows `is None` and `is not None`, not `is {ast.unparse(right)[:80]}`: use ==")
        missing = Missing(_node(left, depth))
        return Not(missing) if isinstance(sign, ast.IsNot) else missing
    found = _found_in(left, right, depth)
    return Not(found) if isinstance(sign, ast.NotIn) else found


def _found_in(left: ast.expr, right: ast.expr, depth: int) -> Node:
    if isinstance(right, ast.Name) and isinstance(left, ast.Constant) and isinstance(left.value, str):
        text = _constant(left).value
        return Contains(str(text), Column(right.id))
    if not isinstance(right, ast.List | ast.Tuple | ast.Set):
        raise ValueError(f"`in {ast.unparse(right)[:80]}`: wanted is a list like ('a', 'b'), or 'text' in a column")
    values = [_node(value, depth) for value in right.elts]
    plain = [value.value for value in values if isinstance(value, Constant) and not isinstance(value.value, bool)]
    if len(plain) < len(values) or not plain or len({type(value) for value in plain}) > 1:
        raise ValueError(f"`in {ast.unparse(right)[:80]}`: wanted are one or more numbers, or one or more texts")
    return OneOf(_node(left, depth), tuple(sorted(set(plain))))  # type: ignore[type-var]


def spell(node: Node) -> str:
    """Canonical text, every operation in brackets."""
    match node:
        case Column(name):
            return name
        case Constant(value):
            return "null" if value is None else json.dumps(value + 0.0 if isinstance(value, float) else value)
        case Arithmetic(sign, left, right) | Comparison(sign, left, right):
            return f"({spell(left)} {sign} {spell(right)})"
        case OneOf(item, values):
            return f"({spell(item)} in {json.dumps(list(values))})"
        case Contains(text, column):
            return f"({json.dumps(text)} in {column.name})"
        case Missing(item):
            return f"({spell(item)} is null)"
        case Not(item):
            return f"(not {spell(item)})"
        case And(items):
            return "(" + " and ".join(map(spell, items)) + ")"
        case Or(items):
            return "(" + " or ".join(map(spell, items)) + ")"


def columns_of(node: Node) -> set[str]:
    """Names of the columns that the condition reads."""
    match node:
        case Column(name):
            return {name}
        case Constant():
            return set()
        case Arithmetic(_, left, right) | Comparison(_, left, right):
            return columns_of(left) | columns_of(right)
        case Contains(_, column):
            return {column.name}
        case OneOf(item, _) | Missing(item) | Not(item):
            return columns_of(item)
        case And(items) | Or(items):
            return set().union(*map(columns_of, items))


def kinds_of(schema: pa.Schema) -> dict[str, Kind]:
    """Kind of every column."""
    return {field.name: _kind_of_type(field.type) for field in schema}


def _kind_of_type(kind: pa.DataType) -> Kind:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return Kind.NUMBER
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Kind.TEXT
    if pa.types.is_boolean(kind):
        return Kind.TRUTH
    return Kind.NOTHING if pa.types.is_null(kind) else Kind.OTHER


def check(node: Node, kinds: Mapping[str, Kind]) -> None:
    """ValueError unless the condition fits these columns and is true or false in the end."""
    _expect(node, Kind.TRUTH, kinds, "where")


def _expect(node: Node, wanted: Kind, kinds: Mapping[str, Kind], place: str) -> None:
    found = _kind(node, kinds)
    if found not in (wanted, Kind.NOTHING):
        raise ValueError(f"{place}: `{spell(node)[:80]}` is {found}, wanted is {wanted}")


def _kind(node: Node, kinds: Mapping[str, Kind]) -> Kind:
    match node:
        case Column(name):
            return _kind_of_column(name, kinds)
        case Constant(value):
            return Kind.TRUTH if isinstance(value, bool) else Kind.TEXT if isinstance(value, str) else Kind.NUMBER
        case Arithmetic(sign, left, right):
            for side in (left, right):
                _expect(side, Kind.NUMBER, kinds, f"where, beside {sign}")
            return Kind.NUMBER
        case Comparison():
            _check_comparison(node, kinds)
        case OneOf(item, values):
            _expect(item, Kind.TEXT if isinstance(values[0], str) else Kind.NUMBER, kinds, "where, before `in`")
        case Contains(_, column):
            _expect(column, Kind.TEXT, kinds, "where, after `in`")
        case Missing(item):
            _kind(item, kinds)
        case Not(item):
            _expect(item, Kind.TRUTH, kinds, "where, after `not`")
        case And(items) | Or(items):
            for item in items:
                _expect(item, Kind.TRUTH, kinds, "where, beside `and` or `or`")
    return Kind.TRUTH


def _kind_of_column(name: str, kinds: Mapping[str, Kind]) -> Kind:
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds)}"
        raise ValueError(f"where: there is no column {name}: {hint}")
    if kinds[name] is Kind.OTHER:
        raise ValueError(f"where: column {name} holds neither numbers nor text nor truth values")
    return kinds[name]


def _check_comparison(node: Comparison, kinds: Mapping[str, Kind]) -> None:
    left, right = _kind(node.left, kinds), _kind(node.right, kinds)
    if left is not right and Kind.NOTHING not in (left, right):
        raise ValueError(
            f"where: `{spell(node.left)[:80]}` is {left}, `{spell(node.right)[:80]}` is {right}: "
            f"`{node.sign}` compares two of a kind"
        )
    if Kind.TRUTH in (left, right) and node.sign not in ("==", "!="):
        raise ValueError(f"where: truth values have no order: `{spell(node)[:80]}`")


def sql(node: Node, kinds: Mapping[str, Kind], parameters: list[float | str]) -> str:
    """The condition for DuckDB; constants go to `parameters`, so that no text of the user's is ever part of the SQL."""

    def bind(value: float | str) -> str:
        parameters.append(value)
        return f"cast(? as {'varchar' if isinstance(value, str) else 'double'})"

    match node:
        case Column(name) if kinds[name] is Kind.NOTHING:
            return "null"
        case Column(name):
            quoted = '"' + name.replace('"', '""') + '"'
            as_kind = {Kind.TEXT: "varchar", Kind.TRUTH: "boolean"}.get(kinds[name], "double")
            cast = f"cast({quoted} as {as_kind})"
            return _finite_sql(cast) if kinds[name] is Kind.NUMBER else cast
        case Constant(bool() as value):
            return "true" if value else "false"
        case Constant(value):
            return bind(value)
        case Arithmetic(sign, left, right):
            first, second = sql(left, kinds, parameters), sql(right, kinds, parameters)
            return _finite_sql(f"({first} / nullif({second}, 0))" if sign == "/" else f"({first} {sign} {second})")
        case Comparison(sign, left, right):
            return f"({sql(left, kinds, parameters)} {sign} {sql(right, kinds, parameters)})"
        case OneOf(item, values):
            return f"({sql(item, kinds, parameters)} in ({', '.join(map(bind, values))}))"
        case Contains(text, column):
            return f"contains({sql(column, kinds, parameters)}, {bind(text)})"
        case Missing(item):
            return f"({sql(item, kinds, parameters)} is null)"
        case Not(item):
            return f"(not {sql(item, kinds, parameters)})"
        case And(items):
            return "(" + " and ".join(sql(item, kinds, parameters) for item in items) + ")"
        case Or(items):
            return "(" + " or ".join(sql(item, kinds, parameters) for item in items) + ")"


def _finite_sql(number: str) -> str:
    """Null where `number` is infinite or NaN; it is named once only, since it may hold parameters."""
    for odd in ("inf", "-inf", "nan"):  # DuckDB holds NaN equal to itself
        number = f"nullif({number}, '{odd}'::double)"
    return number


def evaluate(node: Node, kinds: Mapping[str, Kind]) -> Predicate:
    """The condition as a function of a row; None stands for unknown, as SQL's null does."""
    match node:
        case Column(name):
            return (lambda row: _finite(row.get(name))) if kinds[name] is Kind.NUMBER else (lambda row: row.get(name))
        case Constant(value):
            return lambda row: value
        case Arithmetic(sign, left, right) | Comparison(sign, left, right):
            return _of_two(COMPUTE[sign], evaluate(left, kinds), evaluate(right, kinds))
        case OneOf(item, values):
            found, allowed = evaluate(item, kinds), frozenset(values)
            return lambda row: None if (value := found(row)) is None else value in allowed
        case Contains(text, column):
            whole = evaluate(column, kinds)
            return lambda row: None if (value := whole(row)) is None else text in str(value)
        case Missing(item):
            asked = evaluate(item, kinds)
            return lambda row: asked(row) is None
        case Not(item):
            turned = evaluate(item, kinds)
            return lambda row: None if (value := turned(row)) is None else not value
        case And(items):
            parts = [evaluate(item, kinds) for item in items]
            return lambda row: _and([part(row) for part in parts])
        case Or(items):
            choices = [Not(item) for item in items]
            none = [evaluate(item, kinds) for item in choices]
            return lambda row: None if (value := _and([part(row) for part in none])) is None else not value


def _of_two(compute: Callable[[Any, Any], Any], left: Predicate, right: Predicate) -> Predicate:
    def result(row: Row) -> Value:
        a, b = left(row), right(row)
        if a is None or b is None:
            return None
        try:
            value = compute(a, b)
        except (ZeroDivisionError, OverflowError):
            return None
        return value if isinstance(value, bool) else _finite(value)

    return result


def _finite(value: Any) -> float | None:
    """The number as a 64-bit float; None where it is missing, NaN or infinite."""
    return float(value) if value is not None and math.isfinite(value) else None


def _and(values: list[Value]) -> bool | None:
    """False where one is false, else unknown where one is unknown, else true (Kleene)."""
    if any(value is False for value in values):
        return False
    return None if any(value is None for value in values) else True
