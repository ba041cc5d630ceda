"""Settings that work only under another one, and are refused where they would do nothing."""

from scaling_fl.config.no_effect.privacy import PRIVACY
from scaling_fl.config.no_effect.rule import NoEffect, value_at
from scaling_fl.config.no_effect.server import SERVER
from scaling_fl.config.no_effect.traffic import TRAFFIC
from scaling_fl.config.no_effect.training import TRAINING

__all__ = ["NO_EFFECT", "NoEffect", "value_at"]

NO_EFFECT = (*TRAINING, *TRAFFIC, *PRIVACY, *SERVER)
