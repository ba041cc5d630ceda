"""Configuration -> the merge: one of the table's, or a user's own."""

from scaling_fl.config import Config
from scaling_fl.methods.merging.means import mean, mean_of_senders
from scaling_fl.methods.merging.merge import Merge


def make_merge(config: Config) -> Merge:
    """Make the merge that the configuration names."""
    return mean_of_senders() if config.merge.divide_by == "senders" else mean()
