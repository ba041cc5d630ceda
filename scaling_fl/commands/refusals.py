"""The filter by which a template asks the configuration whether it takes a value."""

from typing import Any

from jinja2 import Environment
from jinja2.ext import Extension

from scaling_fl.config import ConfigurationError, read_single_settings


class Refusals(Extension):
    """Adds the filter ``refusal``, loaded by the name that the template gives."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.filters["refusal"] = refusal


def refusal(value: Any, path: str) -> str:
    """Say what is wrong with a value of the setting at a dotted path; "" when nothing is."""
    settings: Any = value
    for key in reversed(path.split(".")):
        settings = {key: settings}
    try:
        read_single_settings(settings)
    except ConfigurationError as error:
        problem = error.problems[0]
        return f"{problem.rule}, got {problem.got}; give such a value"
    return ""
