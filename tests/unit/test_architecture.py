"""The package keeps its layers, its size and its promise never to load a pickle."""

import ast
import graphlib
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
}
LAYERS["build"] = {"core", "config", "methods", "learning", "runtime", "federation"}
LAYERS["jobs"] = LAYERS["build"] | {"build", "reporting"}
LAYERS["commands"] = LAYERS["jobs"] | {"jobs", "submission"}
PICKLES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
PICKLE_CALLS = {"torch.load", "torch.save", "read_pickle", "to_pickle"}


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


OWN = python_files(PACKAGE)
PROGRAMS = [*OWN, *python_files("scripts", "benchmarks")]
EVERYTHING = [*PROGRAMS, *python_files("tests")]


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file) for file in OWN}


def layer(module: str) -> str:
    return [*module.split("."), ""][1]


def imports(file: Path, tree: ast.AST | None = None) -> Iterator[str]:
    """Yield the modules of our own package that a file (or a part of it) imports."""
    package = module_name(file).split(".")
    package = package if file.name == "__init__.py" else package[:-1]
    for node in ast.walk(tree or ast.parse(file.read_text())):
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


@pytest.mark.parametrize("file", OWN, ids=named)
def test_a_module_imports_only_the_layers_below_it(file: Path) -> None:
    own = layer(module_name(file))
    foreign = {name for name in imports(file) if layer(name) not in LAYERS[own] | {own}}
    assert foreign == set()


def test_nothing_of_the_package_imports_a_script_or_a_test() -> None:
    for file in OWN:
        roots = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module
            for name in [node.module]
        }
        assert not roots & {"scripts", "tests", "benchmarks"}, named(file)


def test_there_are_no_import_cycles() -> None:
    graph = {module_name(file): set(imports(file)) - {module_name(file)} for file in OWN}
    order = list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names a cycle
    assert graph.keys() <= set(order)


@pytest.mark.parametrize("file", PROGRAMS, ids=named)
def test_no_function_imports_our_own_package(file: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    hidden = {name for function in functions for name in imports(file, function)}
    assert hidden == set()


@pytest.mark.parametrize("file", PROGRAMS, ids=named)
def test_a_file_stays_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= LIMIT


@pytest.mark.parametrize("file", PROGRAMS, ids=named)
def test_no_module_is_a_drawer_for_leftovers(file: Path) -> None:
    assert not {"utils", "util", "helpers", "helper", "common", "misc"} & {
        part.lower() for part in file.relative_to(ROOT).with_suffix("").parts
    }


def pickling(source: str) -> list[str]:
    """List what a source text does with pickles."""
    found = []
    for node in ast.walk(ast.parse(source)):
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


PICKLE_KEYWORDS = {("allow_pickle", True), ("weights_only", False)}


@pytest.mark.parametrize("file", EVERYTHING, ids=named)
def test_no_pickle_is_ever_written_or_loaded(file: Path) -> None:
    assert pickling(file.read_text()) == []


# The search must find each of these; they are texts that no test runs.
@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "read(x, weights_only=False)",
        "import pandas\npandas.read_pickle('x')",
    ],
)
def test_the_search_for_pickles_finds_them(source: str) -> None:
    assert pickling(source) != []
