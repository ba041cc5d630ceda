"""The package keeps its layers, its size, its names and its promise never to load a pickle."""

import ast
import graphlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "scaling_fl"
LIMIT = 300

# What each wing may import of the package, itself aside: no arrow goes up.
LAYERS: dict[str, set[str]] = {
    "": set(),
    "core": set(),
    "config": {"core"},
    "methods": {"core"},
    "learning": {"core"},
    "runtime": {"core"},
    "federation": {"core", "methods", "learning"},
    "reporting": {"core"},
    "submission": {"core", "config", "runtime"},
    "sweeps": {"core", "config", "runtime"},
}
LAYERS["composition"] = {"core", "config", "methods", "learning", "runtime", "federation"}
LAYERS["conformance"] = {"core", "config", "methods", "learning", "federation", "composition"}
LAYERS["jobs"] = LAYERS["composition"] | {"composition", "reporting"}
LAYERS["flower"] = LAYERS["jobs"] | {"jobs"}
LAYERS["commands"] = LAYERS["jobs"] | {"jobs", "submission", "sweeps", "conformance", "flower"}

# The floors of each wing that has folders, from below: no arrow goes up or along a floor.
FLOORS: dict[str, list[set[str]]] = {
    "methods": [{"wire", "privacy"}, {"merging"}],
    "learning": [{"text", "models"}, {"tables", "training"}, {"questions", "images"}, {"tasks"}],
    "runtime": [{"storage", "machines"}, {"record"}, {"tracking"}],
    "reporting": [{"report"}],
    "commands": [{"sweeps"}],
}

DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
PICKLE_CALLS = {"torch.load", "torch.save", "read_pickle", "to_pickle"}
_SAFE = ("learning/safe_pickle.py", "tests/torch_files.py")
"""The reader of published files, and what writes one for its test."""
PICKLE_KEYWORDS = {("allow_pickle", True), ("weights_only", False)}


def python_files(*folders: str) -> dict[str, ast.Module]:
    """Parse all Python files of some folders, by their paths in the project."""
    files = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in files}


OWN = python_files(PACKAGE)
PROGRAMS = OWN | python_files("scripts", "benchmarks")
EVERYTHING = PROGRAMS | python_files("tests")


def module_name(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_name(file) for file in OWN}
FOLDERS = {module_name(file) for file in OWN if file.endswith("/__init__.py")}


def imports(file: str, tree: ast.AST) -> Iterator[str]:
    """Yield the modules of our own package that a file, or a part of it, imports."""
    package = module_name(file).split(".")
    package = package if file.endswith("/__init__.py") else package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            inner = [f"{source}.{alias.name}" for alias in node.names]
            targets = [name if name in MODULES else source for name in inner]
        else:
            continue
        yield from (name for name in targets if name.split(".")[0] == PACKAGE)


def arrows() -> Iterator[tuple[str, str]]:
    """Yield every import inside the package as (module, what it imports)."""
    for file, tree in OWN.items():
        yield from ((module_name(file), name) for name in imports(file, tree))


def wing(module: str) -> str:
    return [*module.split("."), ""][1]


def room(module: str) -> str:
    """Name the folder of a wing that a module lies in; "" for the modules beside the folders."""
    inner = module.split(".")[2:3]
    return inner[0] if inner and ".".join(module.split(".")[:3]) in FOLDERS else ""


def floor(module: str) -> int:
    floors = FLOORS.get(wing(module), [])
    return next((n for n, rooms in enumerate(floors) if room(module) in rooms), -1)


def test_the_package_has_wings_and_no_loose_module() -> None:
    loose = {file for file in OWN if file.count("/") == 1} - {f"{PACKAGE}/__init__.py"}
    assert loose == set()
    assert {wing(module) for module in MODULES} == LAYERS.keys()


def test_a_module_imports_only_the_wings_below_its_own() -> None:
    up = {(m, name) for m, name in arrows() if wing(name) not in LAYERS[wing(m)] | {wing(m)}}
    assert up == set()


def test_a_folder_of_a_wing_imports_only_the_floors_below_its_own() -> None:
    inside = {(m, name) for m, name in arrows() if wing(m) == wing(name) and room(m) and room(name)}
    up = {(m, n) for m, n in inside if room(m) != room(n) and floor(n) >= floor(m)}
    assert up == set()
    homeless = {m for m in MODULES if room(m) and floor(m) < 0}
    assert homeless == set(), "name the floor of each new folder in FLOORS"


def test_neither_modules_nor_folders_import_each_other_in_a_circle() -> None:
    modules: dict[str, set[str]] = defaultdict(set)
    rooms: dict[str, set[str]] = defaultdict(set)
    for module, name in arrows():
        modules[module] |= {name} - {module}
        here, there = (".".join(m.split(".")[:3]) for m in (module, name))
        rooms[here] |= {there} - {here}
    assert [cycle_in(graph) for graph in (modules, rooms)] == [[], []]


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_nothing_of_the_package_imports_a_script_or_a_test() -> None:
    offenders = {
        (file, node.module)
        for file, tree in OWN.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        if node.module.split(".")[0] in {"scripts", "tests", "benchmarks"}
    }
    assert offenders == set()


def test_no_function_imports_our_own_package() -> None:
    hidden = {
        (file, node.name, name)
        for file, tree in PROGRAMS.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in imports(file, node)
    }
    assert hidden == set()


def test_every_file_is_short() -> None:
    lengths = {file: len((ROOT / file).read_text().splitlines()) for file in PROGRAMS}
    assert {file: length for file, length in lengths.items() if length > LIMIT} == {}


def test_no_module_is_a_drawer_for_leftovers() -> None:
    assert {
        file for file in PROGRAMS if DRAWERS & set(module_name(file).lower().split("."))
    } == set()


def test_no_folder_has_a_name_that_tools_pass_over() -> None:
    """Pytest, for example, collects no test below a folder named build."""
    skipped = {"build", "dist", "env", "venv", "node_modules", "site-packages"}
    assert {file for file in EVERYTHING if skipped & set(file.split("/"))} == set()


def test_no_class_name_occurs_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file, tree in OWN.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(file)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def pickling(tree: ast.AST) -> list[str]:
    """List what a program does with pickles."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += [node.module] if node.module.split(".")[0] in PICKLES else []
            found += sorted(names & PICKLE_CALLS)
        elif isinstance(node, ast.Attribute):
            dotted = {ast.unparse(node), node.attr}
            found += sorted(dotted & PICKLE_CALLS)
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            given = (node.arg, node.value.value)
            found += [str(given)] if given in PICKLE_KEYWORDS else []
    return found


def test_no_pickle_is_ever_written_or_loaded() -> None:
    """But for those of published files, by a reader that calls nothing that they name."""
    others = {file: tree for file, tree in EVERYTHING.items() if not file.endswith(_SAFE)}
    found = {file: pickling(tree) for file, tree in others.items()}
    assert {file: calls for file, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        # What is looked for stands here as text, which is parsed and never run.
        ("import pickle", ["pickle"]),
        ("from joblib import load", ["joblib"]),
        ("import torch\ntorch.load('x')", ["torch.load"]),
        ("from torch import load", ["torch.load"]),
        *(
            (f"read(x, {name}={value})", [str((name, value))])
            for name, value in sorted(PICKLE_KEYWORDS)
        ),
        ("import pandas\npandas.read_pickle('x')", ["read_pickle"]),
        ("from safetensors.torch import load", []),
        ("import json\njson.load(file)", []),
        *((f"read(x, {name}={not value})", []) for name, value in sorted(PICKLE_KEYWORDS)),
    ],
)
def test_the_search_for_pickles_finds_them_and_nothing_else(source: str, found: list[str]) -> None:
    assert pickling(ast.parse(source)) == found
