"""Files of settings: YAML or JSON, read so that what cannot be meant is told with its line."""

import json
from pathlib import Path
from typing import Any

import yaml

TEXTS = ("job_name", "author")  # which look like numbers at times, and are none
SUFFIXES = (".yaml", ".yml", ".json")


class NotSettings(Exception):
    """A file does not hold settings: what must hold, what is there instead, and in which line."""

    def __init__(self, rule: str, got: str, line: int = 0) -> None:
        super().__init__(rule)
        self.rule, self.got, self.line = rule, got, line


def read_settings_file(path: Path) -> Any:
    """Read a YAML or JSON file as plain data.

    Raises:
        NotSettings: it is neither.
        OSError: it cannot be read.
    """
    if path.suffix not in SUFFIXES:
        raise NotSettings("must be a .yaml or .json file", path.suffix or "no ending")
    try:
        text = path.read_text("utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
    except UnicodeDecodeError:
        raise NotSettings("must be text in UTF-8", "other bytes") from None
    except json.JSONDecodeError as error:
        raise NotSettings("must be JSON", error.msg, error.lineno) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotSettings(
            "must be YAML", str(error.problem), mark.line + 1 if mark else 0
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise NotSettings("must be YAML", str(error).partition("\n")[0]) from None


class _Loader(yaml.SafeLoader):
    """Reads a name as it is typed, and refuses a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # which cannot be a name, as is told later
            if key.value in seen and key.value != "<<":
                problem = f"{key.value} twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
            if key.value in TEXTS and value.tag.rpartition(":")[2] in ("int", "float"):
                value.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


# A date is no setting; without this it would be an object of its own.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: str(node.value))
