"""The work itself: measure a source file, sum up a folder, write the report."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

SUFFIXES = frozenset(
    {".c", ".cfg", ".cpp", ".css", ".go", ".h", ".html", ".java", ".js", ".jsx", ".md", ".py",
     ".rs", ".rst", ".sh", ".sql", ".toml", ".ts", ".tsx", ".txt", ".yaml", ".yml"}
)  # fmt: skip
SKIPPED = frozenset({"__pycache__", "build", "dist", "node_modules", "target", "venv"})
FILES_MAX = 1000
FILE_BYTES_MAX = 1 << 20
_MARK = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


class Longest(Struct, frozen=True):
    """The longest function seen."""

    name: str
    lines: int
    path: str


class Measures(Struct, frozen=True, kw_only=True):
    """What is counted of a file, or summed up over a folder."""

    path: str
    files: int = 1
    lines: int = 0
    functions: int = 0
    todos: int = 0
    imports: list[str] = []
    longest: Longest | None = None


def source_files(root: Path) -> list[str]:
    """The source files below a directory, as relative paths, hidden and built ones left out."""
    return sorted(_walk(root, root))[:FILES_MAX]


def _walk(root: Path, directory: Path) -> Iterator[str]:
    for entry in directory.iterdir():
        if entry.name.startswith(".") or entry.name in SKIPPED or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _walk(root, entry)
        elif entry.suffix in SUFFIXES and entry.stat().st_size <= FILE_BYTES_MAX:
            yield entry.relative_to(root).as_posix()


def folder_of(path: str) -> str:
    """The folder that a file or folder lies in; the root is `.`."""
    return PurePosixPath(path).parent.as_posix()


def folders_of(paths: Iterable[str]) -> list[str]:
    """Every folder above the paths, children before their parents."""
    found = {parent.as_posix() for path in paths for parent in PurePosixPath(path).parents}
    return sorted(found, key=lambda folder: (-_depth(folder), folder))


def _depth(folder: str) -> int:
    return len(PurePosixPath(folder).parts)


def measure(root: Path, path: str) -> Measures:
    """Count lines, functions, imports and marks of one file."""
    text = (root / path).read_text("utf-8", "replace")
    lines, todos = len(text.splitlines()), len(_MARK.findall(text))
    try:
        tree = ast.parse(text) if path.endswith(".py") else None
    except (SyntaxError, ValueError):
        tree = None
    if tree is None:
        return Measures(path=path, lines=lines, todos=todos)
    nodes = list(ast.walk(tree))
    functions = [
        Longest(node.name, (node.end_lineno or node.lineno) - node.lineno + 1, path)
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return Measures(
        path=path,
        lines=lines,
        functions=len(functions),
        todos=todos,
        imports=sorted(set(_imports(nodes))),
        longest=max(functions, key=lambda function: function.lines, default=None),
    )


def _imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def summed_up(folder: str, parts: Iterable[Measures]) -> Measures:
    """A folder's measures: those of everything in it."""
    known = list(parts)
    longest = [part.longest for part in known if part.longest is not None]
    return Measures(
        path=folder,
        files=sum(part.files for part in known),
        lines=sum(part.lines for part in known),
        functions=sum(part.functions for part in known),
        todos=sum(part.todos for part in known),
        imports=sorted({name for part in known for name in part.imports}),
        longest=max(longest, key=lambda function: function.lines, default=None),
    )


def report(name: str, folders: Iterable[Measures]) -> str:
    """The report on the whole tree, in Markdown."""
    rows = sorted(folders, key=lambda folder: folder.path)
    whole = next(row for row in rows if row.path == ".")
    longest = whole.longest
    text = [f"# Audit of {name}", "", _in_words(whole)]
    if longest is not None:
        where = f"`{longest.name}` in `{longest.path}`"
        text.append(f"The longest function is {where}: {longest.lines} lines.")
    text += [
        "",
        "| folder | files | lines | functions | marks | longest function |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        top = f"`{row.longest.name}`, {row.longest.lines}" if row.longest else ""
        text.append(
            f"| {row.path} | {row.files} | {row.lines} | {row.functions} | {row.todos} | {top} |"
        )
    return "\n".join(text) + "\n"


def _in_words(whole: Measures) -> str:
    counted = f"{whole.files} files, {whole.lines} lines, {whole.functions} functions"
    marks = f"{whole.todos} open marks (TODO and the like)"
    return f"{counted}, {marks}, {len(whole.imports)} modules imported."
