"""The shape of the house: longest functions and files, import cycles, the main loop, globals. Trends, not limits."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("nemo_summer", "curator", "energon_datasets")
ROOT = Path(__file__).resolve().parent.parent


def sources() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of ours with its syntax tree."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports_of(tree: ast.Module, lazy: bool) -> set[str]:
    """Names of our own modules that a module imports: when it is imported itself, or (`lazy`) wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, largest first (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph.get(name, ()):
            if other not in graph:
                continue
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return sorted(found, key=len, reverse=True)


def main() -> None:
    trees = list(sources())
    lengths = sorted(
        ((lines_of(f), f"{path}:{f.lineno} {f.name}") for path, tree in trees for f in functions(tree)), reverse=True
    )
    files = sorted(((len((ROOT / path).read_text().splitlines()), str(path)) for path, _ in trees), reverse=True)
    short = sum(length <= 40 for length, _ in lengths)

    print(f"{len(files)} files, {sum(n for n, _ in files)} lines, {len(lengths)} functions")
    print(f"functions of at most 40 lines: {short} ({short / max(1, len(lengths)):.1%})")
    for title, rows in (("longest functions", lengths[:5]), ("longest files", files[:5])):
        print(f"\n{title}")
        for length, what in rows:
            print(f"  {length:5d}  {what}")
    loop = [length for length, what in lengths if what.startswith("nemo_summer/training/loop.py:")]
    print(f"\nmain loop: {loop[0] if loop else '-'} lines")
    print(f"`global` statements: {sum(isinstance(n, ast.Global) for _, tree in trees for n in ast.walk(tree))}")
    for lazy, what in ((False, "import cycles"), (True, "cycles closed inside a function or for types only")):
        groups = cycles({module_name(path): imports_of(tree, lazy) for path, tree in trees})
        print(f"{what}: {len(groups)}" + "".join("\n  " + " <-> ".join(group) for group in groups))


if __name__ == "__main__":
    main()
