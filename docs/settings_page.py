"""Write docs/settings.md: every setting with its default, its range and its meaning.

python docs/settings_page.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from scaling_fl.config import Config
from scaling_fl.config.base import choices, conditions, sections_in

PAGE = Path(__file__).parent / "settings.md"
_HEAD = """# All settings

Every setting of `scripts/train_federated.py with ...`, from the configuration itself
(`python docs/settings_page.py`). A setting that has no effect beside the others is refused.
`./run-local.sh scripts/train_federated.py print_config` prints them with the values of a command.
"""


def page() -> str:
    return _HEAD + "".join(_tables(Config, "", "The run"))


def _tables(section: type[BaseModel], prefix: str, title: str) -> Iterator[str]:
    rows, below = [], []
    for name, field in section.model_fields.items():
        if inner := sections_in(field):
            below += [(part, f"{prefix}{name}{mark}.", field.description) for part, mark in inner]
            if not any(mark for _, mark in inner):
                continue
        cells = (f"`{prefix}{name}`", _default(field), _values(field), _meaning(field, prefix))
        rows.append(f"| {' | '.join(cells)} |")
    head = "| setting | default | values | meaning |\n| --- | --- | --- | --- |\n"
    yield f"\n## {title}\n\n{head}" + "\n".join(rows) + "\n"
    for part, path, meaning in below:
        yield from _tables(part, path, f"`{path.rstrip('.')}`\n\n{meaning}")


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _values(field: FieldInfo) -> str:
    if names := choices(field):
        return ", ".join(f"`{name}`" for name in names)
    bounds = [
        f"{sign} {value:g}"
        for note in _notes(field)
        for kind, sign, value in _bounds(note)
        if isinstance(note, kind)
    ]
    return ", ".join(bounds)


def _notes(field: FieldInfo) -> list[Any]:
    """List what restricts a setting, also one that may be None."""
    inner = getattr(field.annotation, "__args__", ())
    of_parts = [note for part in inner for note in getattr(part, "__metadata__", ())]
    found = []
    for note in [*field.metadata, *of_parts]:
        found += note.metadata if isinstance(note, FieldInfo) else [note]
    return found


def _bounds(note: Any) -> list[tuple[type, str, float]]:
    table = ((Ge, ">=", "ge"), (Gt, ">", "gt"), (Le, "<=", "le"), (Lt, "<", "lt"))
    return [(kind, sign, getattr(note, name)) for kind, sign, name in table if hasattr(note, name)]


def _meaning(field: FieldInfo, prefix: str) -> str:
    notes = [condition.inside(prefix.rstrip(".")).note for condition in conditions(field)]
    return " ".join([" ".join((field.description or "").split()), *notes]).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
