"""Sizes and names are budgets: what is over one of them is two ideas in one place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 60
POSITIONAL = 6          # arguments; then a config, or keywords
INIT_NAMES = 10
SETTINGS = 20           # fields of one config class
NOWHERE = {"utils", "util", "common", "helpers", "helper", "misc"}
Function = ast.FunctionDef | ast.AsyncFunctionDef
Modules = dict[str, ast.Module]


def functions(modules: Modules) -> Iterator[tuple[str, Function]]:
    for path, module in modules.items():
        for node in ast.walk(module):
            if isinstance(node, Function):
                yield f"{path}:{node.name}", node


def sources(modules: Modules) -> Modules:
    return {path: module for path, module in modules.items() if "/src/" in path}


def test_no_file_is_too_long(files: list[Path], root: Path) -> None:
    python = [path for path in files if path.suffix == ".py"]
    lines = {str(path.relative_to(root)): path.read_text(encoding="utf-8").count("\n") for path in python}
    long = {path: n for path, n in lines.items() if n > FILE_LINES}
    assert not long, f"over {FILE_LINES} lines: {long}. Move one idea out into a file named after it."


def test_no_function_is_too_long(modules: Modules) -> None:
    lines = {name: (node.end_lineno or node.lineno) - node.lineno + 1 for name, node in functions(modules)}
    long = {name: n for name, n in lines.items() if n > FUNCTION_LINES}
    assert not long, f"over {FUNCTION_LINES} lines: {long}. Name its steps."


def test_no_function_takes_too_many_positional_arguments(modules: Modules) -> None:
    many = {}
    for name, node in functions({p: m for p, m in sources(modules).items() if "/cli/" not in p}):
        given = [a.arg for a in node.args.posonlyargs + node.args.args if a.arg not in {"self", "cls", "ctx"}]
        if len(given) > POSITIONAL:
            many[name] = len(given)
    assert not many, f"over {POSITIONAL} positional arguments: {many}. Pass a config, or use keywords."


def test_no_file_is_named_after_nothing(files: list[Path], root: Path) -> None:
    vague = [str(p.relative_to(root)) for p in files if NOWHERE & {part.split(".")[0] for part in p.parts}]
    assert not vague, f"{vague} do not say what is inside. Name the file after its noun."


def test_an_init_only_gathers_names(modules: Modules) -> None:
    for path, module in sources(modules).items():
        if not path.endswith("/__init__.py"):
            continue
        gathered = 0
        for node in module.body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            version = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
            future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
            names = node.names if isinstance(node, ast.ImportFrom) and not future else []
            exported = bool(names) and all(name.asname == name.name for name in names)
            allowed = docstring or version or future or exported
            assert allowed, f"{path}:{node.lineno} is logic: `{ast.unparse(node)}`"
            gathered += len(names)
        assert gathered <= INIT_NAMES, f"{path} gathers {gathered} names, not at most {INIT_NAMES}"


def test_every_folder_holds_something(modules: Modules) -> None:
    folders: dict[str, int] = {}
    for path in sources(modules):
        folder, _, name = path.rpartition("/")
        folders[folder] = folders.get(folder, 0) + (name != "__init__.py")
    empty = [folder for folder, held in folders.items() if not held]
    assert not empty, f"nothing lives in {empty}"


def test_no_config_class_has_too_many_settings(modules: Modules) -> None:
    settings = {
        f"{path}:{node.name}": sum(isinstance(field, ast.AnnAssign) for field in node.body)
        for path, module in sources(modules).items() if "/fathom/config/" in path
        for node in ast.walk(module) if isinstance(node, ast.ClassDef)
    }
    assert settings, "no config class was found"
    many = {name: n for name, n in settings.items() if n > SETTINGS}
    assert not many, f"over {SETTINGS} settings: {many}. Split by the stage that reads them."


def test_every_error_of_ours_ends_with_the_fix(modules: Modules) -> None:
    """`need` always adds the fix; an error raised by hand brings it, or passes on a message that did."""
    ours = {"FathomError", "ConfigError", "DataError", "DiskError"}
    without = []
    for path, module in sources(modules).items():
        for node in ast.walk(module):
            call = node.exc if isinstance(node, ast.Raise) else None
            if not isinstance(call, ast.Call) or ast.unparse(call.func) not in ours:
                continue
            if not re.search(r"Fix: |(problem|error|fix)\W*$", ast.unparse(call)):
                without.append(f"{path}:{node.lineno}")
    assert not without, f"{without} raise without a fix"
