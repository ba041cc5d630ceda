"""The settings that are no part of a run's identity, which digests and checkpoints hold."""

from typing import Any

from scaling_fl.config.evaluation_settings import EvaluationSettings
from scaling_fl.config.stop_settings import StopSettings

NOT_IDENTITY = frozenset(
    {"site_ids", "num_clients", "device", "num_threads"}
    | {"job_name", "author", "checkpoints_dir", "data.cache_dir"}
    | {"tracking.runs_dir", "tracking.tensorboard"}
    | {"save_every", "keep_last", "eval_every", "val_batch_size", "gradient_checkpointing"}
    | {"download.evaluate", "privacy.delta", "privacy.accountant", "privacy.max_epsilon"}
    | {"init_from"}  # a place, whose content counts
    # these only report or stop; iid_split is folded into partition.kind
    | {"per_class_metrics", "metrics", "min_clients", "iid_split"}
    | {f"stop_when.{name}" for name in StopSettings.model_fields}
    | {f"evaluation.{name}" for name in EvaluationSettings.model_fields}
)


NEWER: dict[str, Any] = {
    **dict.fromkeys(("data.text_pair", "data.label", "data.labels", "data.test_share")),
    "partition.column": None,
    "tier_scale": None,
    "server.bias_correction": None,
    "merge.weigh_by": "client",
    "merge.on": "factors",
    "scaffold": False,
    "server.schedule": "constant",
    "server.final_learning_rate": 0.0,
    "merge.trim_by": "vector",
    **dict.fromkeys(("data.instruction", "data.response", "data.messages")),
    **dict.fromkeys(("data.system", "data.template")),
    "gradient_accumulation_steps": 1,
    "packing": False,
    "data_order": "fresh",
    "load.bits": 32,
    "load.double_quantisation": True,
    "load.attention": None,
    **dict.fromkeys(("data.image", "data.image_size")),
    "data.multi_label": False,
    "data.augment": True,
    "data.images": None,
    "privacy.group_column": None,
    "data.test_of": "rows",
    "partition.pooled": 0.0,
}
"""Settings that older jobs did not have, with what those did: left so, they change no digest."""
