"""Every variable that is read is explained in .env.template, and reaches containers."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / ".env.template"
READERS = {"get", "getenv", "setdefault", "pop"}
"""Their first argument is the variable, and the second a value."""
NAME = re.compile(r"[A-Z][A-Z0-9_]{3,}")

# What systems, launchers and the project itself set, and nobody writes by hand.
OF_THE_SYSTEM = {"HOME", "PATH", "TERM", "USER", "XDG_CACHE_HOME", "JPY_PARENT_PID", "BASH_SOURCE"}
OF_THE_SYSTEM |= {"PYTHONPATH"}
OF_LAUNCHERS = {"CLUSTER_SPEC", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "PET_MASTER_ADDR"}
OF_LAUNCHERS |= {"PET_MASTER_PORT", "PET_NNODES", "PET_NODE_RANK", "TORCHELASTIC_RUN_ID"}
OF_LAUNCHERS |= {"TORCHELASTIC_USE_AGENT_STORE"}
OF_RUN_LOCAL = {"CALLER", "RUNS_DIR", "CHECKPOINTS_DIR", "SCALING_FL_VERSION", "SCALING_FL_COMMIT"}
OF_RUN_LOCAL |= {"SCALING_FL_DIRTY", "SCALING_FL_RUNNER", "SCALING_FL_CONTAINER"}
# What the program sets for libraries, whatever it was.
OVERRULED = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "GIT_PYTHON_REFRESH"}
OVERRULED |= {"DISABLE_SAFETENSORS_CONVERSION"}
OF_FLOWER = {
    "FLWR_HOME",
    "SCALING_FL_OFFICE",
    "SCALING_FL_OFFICE_SECURE",
}  # Flower's own, and between two of our processes
OTHERS = OF_THE_SYSTEM | OF_LAUNCHERS | OF_RUN_LOCAL | OVERRULED | OF_FLOWER
# In a container, what run-local.sh mounts, and what a debugger's file sets.
MOUNTED = {"SCALING_FL_CACHE", "HF_HOME", "GOOGLE_APPLICATION_CREDENTIALS"}
MOUNTED |= {"SCALING_FL_DEBUG_WORKER", "SCALING_FL_DEBUG_ADDRESS"}


def read_by_program() -> set[str]:
    """Find the variables in all that is said to an environment: calls, subscripts, ``in``."""
    found: set[str] = set()
    for folder in ("scaling_fl", "scripts"):
        for file in (ROOT / folder).rglob("*.py"):
            found |= _read_by(ast.parse(file.read_text()))
    return found


def _read_by(tree: ast.Module) -> set[str]:
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }
    found = set()
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Call):
            is_read = isinstance(node.func, ast.Attribute) and node.func.attr in READERS
            parts = [node.func, *(node.args[:1] if is_read else node.args)]
        elif isinstance(node, ast.Subscript):
            parts = [node.value, node.slice]
        elif isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        if any(re.search(r"\b(environ|getenv)\b", ast.unparse(part)) for part in parts):
            found |= set(_texts(parts, constants))
    return {name for name in found if NAME.fullmatch(name)}


def _texts(parts: list[ast.expr], constants: dict[str, str]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        elif isinstance(part, ast.Name) and part.id in constants:
            yield constants[part.id]


def read_by_compose() -> set[str]:
    found: set[str] = set()
    for file in (*ROOT.glob("docker-compose*.yaml"), *ROOT.glob("deploy/docker-compose*.yaml")):
        found |= set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", file.read_text()))
        for service in yaml.safe_load(file.read_text())["services"].values():
            given = service.get("environment", {})
            found |= {name for name, value in given.items() if value is None}
    return found


def read_by_run_local() -> set[str]:
    text = (ROOT / "run-local.sh").read_text()
    found = set(re.findall(r"\bsetting ([A-Z_]+)", text)) | set(
        re.findall(r"\$\{([A-Z_]+):?-", text)
    )
    for names in re.findall(r"for name in ([A-Z_ ]+);", text):
        found |= set(names.split())
    return found - {"MOUNTS"}


def explained() -> dict[str, str]:
    """Map every variable of the template to the comment above it."""
    found, comment = {}, ""
    for line in TEMPLATE.read_text().splitlines():
        if match := re.match(r"#?([A-Z][A-Z_]+)=", line):
            found.setdefault(match[1], comment)
            comment = ""
        elif line.startswith("# "):
            comment += line
        else:
            comment = ""
    return found


def test_every_variable_that_is_read_is_explained() -> None:
    read = read_by_program() | read_by_compose() | read_by_run_local()
    assert {"WORLD_SIZE", "HF_ENDPOINT", "SCALING_FL_CACHE", "RUNTIME", "MONGO_PORT"} <= read
    assert read - OTHERS - explained().keys() == set()
    assert [name for name, comment in explained().items() if len(comment) < 12] == []
    template = TEMPLATE.read_text()
    assert [name for name in OF_LAUNCHERS if name not in template] == []


def test_every_variable_that_is_explained_is_read_by_something() -> None:
    by_libraries = {"GOOGLE_APPLICATION_CREDENTIALS"}
    read = read_by_program() | read_by_compose() | read_by_run_local() | by_libraries
    assert explained().keys() - read == set()


def test_what_the_program_reads_reaches_a_container() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    passed = compose["services"]["main"]["environment"].keys()
    assert read_by_program() - OTHERS - MOUNTED - passed == set()
