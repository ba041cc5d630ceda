"""A prediction as text: what a person asks first, tier by tier, and compared with plain fp32."""

from typing import Any

from scaling_fl.reporting.plan import render

PLAN: dict[str, Any] = {
    "total_parameters": 1_000_000,
    "trainable_parameters": 25_000,
    "num_clients": 6,
    "num_rounds": 4,
    "ends_by": None,
    "may_end_by": [],
    "tiers": [
        {"num_clients": 6, "parameters": 25_000, "download_bytes": 2_000, "upload_bytes": 500}
    ],
    "total_download_bytes": 24_000,
    "total_upload_bytes": 6_000,
    "total_bytes": 30_000,
    "plain_bytes": 120_000,
    "npy_bytes": 1_572_864,
    "checkpoint_bytes": 100_000,
    "memory": {"model": 4_000_000, "gradients": 100_000},
    "memory_bytes": 4_100_000,
    "noise_multiplier": None,
    "delta": None,
    "epsilon": None,
}


def test_a_plan_says_what_is_trained_sent_saved_and_held() -> None:
    assert render(PLAN) == (
        "trained       25,000 of 1,000,000 parameters (2.50%)\n"
        "rounds        4, 6 clients\n"
        "a client      2.0 kB down and 500 bytes up in round 1, 25,000 parameters\n"
        "bytes down    24,000\n"
        "bytes up      6,000\n"
        "bytes in all  30,000 (30.0 kB), 25.00% of plain fp32\n"
        "  by Flower   1.50 MiB, as fp32 in files .npy\n"
        "checkpoint    100.0 kB\n"
        "memory        at least 4.1 MB a worker, besides the libraries\n"
        "  model       4.0 MB\n"
        "  gradients   100.0 kB"
    )


def test_every_tier_has_its_line() -> None:
    tier = PLAN["tiers"][0] | {"num_clients": 3}
    lines = render(PLAN | {"tiers": [tier, tier | {"parameters": 5}]}).splitlines()
    assert lines[2].startswith("tier 0 ")
    assert lines[3].startswith("tier 1 ")
    assert lines[3].endswith("5 parameters, 3 clients")


def test_noise_has_its_epsilon() -> None:
    text = render(PLAN | {"epsilon": 7.9945, "delta": 0.01, "noise_multiplier": 0.5412})
    assert text.endswith("epsilon       7.995 at delta 0.01, noise multiplier 0.5412")


def test_the_time_is_told_with_its_parts() -> None:
    parts = {"start": 6.0, "step": 0.0125, "client": 0.5, "merge": 0.25, "evaluation": 2.0}
    parts |= {"save": 0.75}
    time = {f"{name}_seconds": value for name, value in parts.items()}
    text = render(PLAN | {"time": time | {"round_seconds": 15.0, "rounds_seconds": 60.0}})
    lines = [" ".join(line.split()) for line in text.splitlines()[-7:]]
    assert lines == [
        "time about 1 min 6 s: 6.0 s to start and 1 min 0 s for 4 rounds",
        "a step 12.5 ms",
        "a client, beside its steps 500.0 ms",
        "an evaluation 2.0 s",
        "merging 250.0 ms",
        "a checkpoint 750.0 ms",
        "a round 15.0 s",
    ]


def test_what_ends_the_run_early_is_told_and_what_may() -> None:
    budget = {"ends_by": "stop_when.bytes=9"}
    rules = {"may_end_by": ["stop_when.target=0.5", "stop_when.seconds=60"]}
    rows = [render(PLAN | more).splitlines()[1] for more in (budget, rules, budget | rules)]
    assert [row.removeprefix("rounds        ") for row in rows] == [
        "4, where stop_when.bytes=9 ends the run, 6 clients",
        "4, or fewer by stop_when.target=0.5 or stop_when.seconds=60, 6 clients",
        "4, where stop_when.bytes=9 ends the run, or fewer by stop_when.target=0.5 or "
        "stop_when.seconds=60, 6 clients",
    ]
