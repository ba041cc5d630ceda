"""Settings of privacy that would do nothing."""

from scaling_fl.config.no_effect.rule import NoEffect

PRIVACY = (
    *(
        NoEffect(
            f"privacy.{name}",
            "privacy.clip",
            lambda c: c.privacy.clip is not None,
            "must be left alone without privacy.clip, which bounds what noise must hide",
            f"set privacy.clip or drop privacy.{name}",
        )
        for name in ("noise_multiplier", "target_epsilon", "target_quantile", "unit")
    ),
    NoEffect(
        "privacy.noise_multiplier",
        "privacy.target_epsilon",
        lambda c: c.privacy.target_epsilon is None,
        "must be 0 when privacy.target_epsilon chooses the noise",
        "give one of the two",
    ),
    *(
        NoEffect(
            f"privacy.{name}",
            "privacy.noise_multiplier",
            lambda c: c.privacy.is_noisy,
            "must be left alone without noise, whose epsilon is infinite",
            "set privacy.noise_multiplier or privacy.target_epsilon, or leave it out",
        )
        for name in ("max_epsilon", "delta", "accountant", "clip_noise")
    ),
    NoEffect(
        "privacy.max_epsilon",
        "privacy.target_epsilon",
        lambda c: (
            c.privacy.max_epsilon is None
            or c.privacy.target_epsilon is None
            or c.privacy.max_epsilon < c.privacy.target_epsilon
        ),
        "must be below privacy.target_epsilon, which the run keeps to by itself",
        "give one of the two",
    ),
    *(
        NoEffect(
            f"privacy.{name}",
            "privacy.target_quantile",
            lambda c: c.privacy.target_quantile is not None,
            "must be left alone when the clip is fixed",
            f"set privacy.target_quantile or drop privacy.{name}",
        )
        for name in ("clip_learning_rate", "clip_noise")
    ),
    *(
        NoEffect(
            f"privacy.{name}",
            "privacy.unit",
            lambda c: c.privacy.unit == "group",
            "must be left alone when the unit is a client",
            f"set privacy.unit=group or drop privacy.{name}",
        )
        for name in ("groups_per_client", "groups_per_round")
    ),
)
