"""The model hub: whether it answers, so that a hub that never does is not asked for every file."""

from functools import cache

from huggingface_hub import constants, try_to_load_from_cache

from scaling_fl.core.errors import UserError
from scaling_fl.core.waiting import SERVER_SECONDS, answers


@cache
def hub_answers() -> bool:
    """Say whether the hub answers; it is asked once in a process, and not if it must not be."""
    return not constants.HF_HUB_OFFLINE and answers(constants.ENDPOINT, "the model hub")


def is_fetched(place: str) -> bool:
    """Say whether a model of the hub is in the cache, whole or not."""
    try:
        return isinstance(try_to_load_from_cache(place, "config.json"), str)
    except ValueError:  # it is no id at all
        return True


def not_fetched(name: str) -> UserError:
    """Describe a model that is not in the cache while the hub does not answer."""
    if constants.HF_HUB_OFFLINE:
        return UserError(
            f"model={name} must have been downloaded before, because HF_HUB_OFFLINE is set, and "
            "was not; unset it once, or name a local folder."
        )
    return UserError(
        f"model={name} must be downloaded once, and the model hub {constants.ENDPOINT} did not "
        f"answer within {SERVER_SECONDS:.0f} s; check the network and HF_ENDPOINT, or name a local "
        "folder."
    )
