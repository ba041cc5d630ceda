"""Say what a run will cost, as text."""

from collections.abc import Mapping
from typing import Any

from scaling_fl.reporting.summary import duration, size


def render(plan: Mapping[str, Any]) -> str:
    """Write a prediction (``Prediction.to_json``) as lines for a person."""
    share = plan["trainable_parameters"] / plan["total_parameters"]
    rows = [
        ("trained", f"{plan['trainable_parameters']:,} of {plan['total_parameters']:,} parameters "
         f"({share:.2%})"),
        ("rounds", f"{_rounds(plan)}, {plan['num_clients']} clients"),
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
        ("  by Flower", f"{plan['npy_bytes'] / 2**20:,.2f} MiB, as fp32 in files .npy"),
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
    if time := plan.get("time"):
        rows += _time_rows(time, plan["num_rounds"])
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def _rounds(plan: Mapping[str, Any]) -> str:
    """Say how many rounds there are, what ends the run there, and what may end it earlier."""
    by, earlier = plan["ends_by"], plan["may_end_by"]
    text = f"{plan['num_rounds']}" + (f", where {by} ends the run" if by else "")
    return f"{text}, or fewer by {' or '.join(earlier)}" if earlier else text


def _time_rows(time: Mapping[str, float], num_rounds: int) -> list[tuple[str, str]]:
    start, rounds = time["start_seconds"], time["rounds_seconds"]
    names = {"step": "a step", "client": "a client, beside its steps"}
    names |= {"evaluation": "an evaluation", "merge": "merging", "save": "a checkpoint"}
    names |= {"round": "a round"}
    return [
        (
            "time",
            f"about {duration(start + rounds)}: {duration(start)} to start and "
            f"{duration(rounds)} for {num_rounds} round{'s' * (num_rounds > 1)}",
        ),
        *((f"  {text}", _short(time[f"{name}_seconds"])) for name, text in names.items()),
    ]


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else duration(seconds)


def _against_plain(total: int, plain: int) -> str:
    text = f"{total:,} ({size(total)})"
    return text if total == plain or not plain else f"{text}, {total / plain:.2%} of plain fp32"
