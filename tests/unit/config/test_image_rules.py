"""What must be told of images, and what must not: each is one sentence."""

from typing import Any

import pytest

from tests.unit.config.settings import merged, problems

CIFAR: dict[str, Any] = {"task_name": "cifar10", "model": "tiny", "train_path": "s3://b/c.tar.gz"}
OWN: dict[str, Any] = {"task_name": "images", "model": "tiny", "train_path": "s3://b/list.csv"}
TABLE = {**OWN, "data": {"image": "file", "label": "kind", "test_share": 0.2}}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            CIFAR | {"model": "minilm"},
            "model must be a model of images, got 'minilm' with task_name=cifar10; set "
            "model=dinov2_small, tiny or an id such as google/vit-base-patch16-224-in21k.",
        ),
        (
            {"task_name": "20newsgroups", "model": "dinov2_small"},
            "model must be a model of texts, got 'dinov2_small' with task_name=20newsgroups; set "
            "model=minilm, or a task of images.",
        ),
        (
            CIFAR | {"max_seq_len": 64},
            "max_seq_len must be left alone for images, which are all of one size, got 64 with "
            "task_name=cifar10; drop max_seq_len.",
        ),
        (
            CIFAR | {"train_path": None},
            "train_path must be given for cifar10, got None; set train_path to the data of "
            "cifar10.",
        ),
        (
            OWN,
            "test_path must be given for images unless data.test_share is, got None; give "
            "test_path, or hold out a part of the training images by data.test_share=0.2.",
        ),
        (
            merged(TABLE, {"data": {"label": None}}),
            "data.label must name the column of the labels, got None; give data.label=label.",
        ),
        (
            CIFAR | {"task_name": "flair", "partition": {"kind": "column", "column": "user"}},
            "partition.column must be user_id for flair, whose clients are its users, got 'user' "
            "with task_name=flair; set partition.column=user_id.",
        ),
        (
            merged(TABLE, {"data": {"multi_label": True}, "metrics": "math:prod"}),
            "metrics must be left alone for images with several labels, which have no confusion "
            "matrix, got ['math:prod'] with task_name=images and data.multi_label=True; drop "
            "metrics.",
        ),
    ],
)
def test_what_is_wrong_with_images_is_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    found = problems(settings)
    assert found == [sentence]


@pytest.mark.parametrize(
    "settings",
    [
        CIFAR,
        TABLE,
        {"task_name": "fashion_mnist", "model": "dinov2_small"},
        CIFAR | {"task_name": "flair", "partition": {"kind": "column", "column": "user_id"}},
        merged(TABLE, {"partition": {"kind": "column", "column": "ward"}}),
        merged(TABLE, {"data": {"multi_label": True, "image_size": 56, "augment": False}}),
    ],
)
def test_what_belongs_to_images_is_accepted(settings: dict[str, Any]) -> None:
    assert problems(settings) == []
