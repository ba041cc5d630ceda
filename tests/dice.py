"""The seed of what tests do at random moments: another one every day, printed, and repeatable."""

import os
from datetime import UTC, datetime


def seed_of_the_day() -> int:
    """Return TEST_SEED, or else the number of the day; shown beside a failure."""
    seed = int(os.environ.get("TEST_SEED") or datetime.now(UTC).date().toordinal())
    print(f"seed {seed}; repeat with TEST_SEED={seed}")
    return seed
