"""Say what a run will cost, as text."""

from collections.abc import Mapping
from typing import Any

from scaling_fl.reporting.summary import size


def render(plan: Mapping[str, Any]) -> str:
    """Write a prediction (``Prediction.to_json``) as lines for a person."""
    share = plan["trainable_parameters"] / plan["total_parameters"]
    rows = [
        ("trained", f"{plan['trainable_parameters']:,} of {plan['total_parameters']:,} parameters "
         f"({share:.2%})"),
        ("rounds", f"{plan['num_rounds']}, {plan['num_clients']} clients"),
    ]  # fmt: skip
    for tier, cost in enumerate(plan["tiers"]):
        name = f"tier {tier}" if len(plan["tiers"]) > 1 else "a client"
        rows.append(
            (
                name,
                f"{size(cost['download_bytes'])} down and {size(cost['upload_bytes'])} up in round "
                f"1, {cost['parameters']:,} parameters"
                + (f", {cost['num_clients']} clients" if len(plan["tiers"]) > 1 else ""),
            )
        )
    rows += [
        ("bytes down", f"{plan['total_download_bytes']:,}"),
        ("bytes up", f"{plan['total_upload_bytes']:,}"),
        ("bytes in all", _against_plain(plan["total_bytes"], plan["plain_bytes"])),
        ("checkpoint", size(plan["checkpoint_bytes"])),
        ("memory", f"at least {size(plan['memory_bytes'])} a worker, besides the libraries"),
        *((f"  {name}", size(taken)) for name, taken in plan["memory"].items()),
    ]
    if plan["epsilon"] is not None:
        rows.append(
            (
                "epsilon",
                f"{plan['epsilon']:.4g} at delta {plan['delta']:g}, noise multiplier "
                f"{plan['noise_multiplier']:.4g}",
            )
        )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _against_plain(total: int, plain: int) -> str:
    text = f"{total:,} ({size(total)})"
    return text if total == plain or not plain else f"{text}, {total / plain:.2%} of plain fp32"
