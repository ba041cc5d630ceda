"""A chart in the page: its place, its title, the numbers behind it, and what a script needs."""

from typing import Any

from scaling_fl.reporting.report.charts import Spec
from scaling_fl.reporting.report.html import Markup, details, element, json_script


def figure(name: str, title: str, spec: Spec, **data: Any) -> Markup:
    """Write the place of a chart; the script draws it when it comes into view.

    ``data`` is what else the script needs to draw it, by name.
    """
    return element(
        "figure",
        element("figcaption", title, id=f"{name}-title"),
        element("div", element("p", "This chart needs the script.", class_="noscript"),
                class_="chart", id=name),
        numbers(name, title),
        json_script({"spec": spec, **data}, data_chart=name),
        aria_labelledby=f"{name}-title",
    )  # fmt: skip


def numbers(name: str, title: str) -> Markup:
    """Write the place of the numbers as drawn, which the script fills when it is opened."""
    return details(
        "The numbers of this chart",
        element("button", "Download as CSV", type="button", data_download=name),
        element("div", class_="numbers", data_title=f"{title}, as drawn"),
        data_numbers=name,
    )
