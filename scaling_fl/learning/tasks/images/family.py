"""The family of tasks that give an image one of several labels."""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scaling_fl.learning.images.crops import draw, views, whole
from scaling_fl.learning.images.pictures import Gallery, Pictures
from scaling_fl.learning.images.stored import StoredImages, store
from scaling_fl.learning.models.adapter_card import image_card
from scaling_fl.learning.models.export import save_adapter, save_image_classifier, save_looks
from scaling_fl.learning.models.vision import (
    Looks,
    load_image_classifier,
    load_looks,
    model_inputs,
    needs_telling,
)
from scaling_fl.learning.options import MakeTask, TaskOptions
from scaling_fl.learning.task import Batch, BatchLoss, Examples, Indices, Split
from scaling_fl.learning.tasks.classification import scoring
from scaling_fl.learning.tasks.classification.labels import OfOneLabel
from scaling_fl.learning.text.labelled import DataError, subset

_MARGIN = 8 / 7
"""The side that is kept of large images, over that of what the model sees: 256 for 224."""


@dataclass(frozen=True)
class ImageClassification(OfOneLabel):
    """A classifier of the images of a gallery.

    Training images are cut and mirrored at random, as FLASC does it (arXiv 2406.05233); with
    ``upside_down`` half of them are turned upside down as well. Test images are seen whole.
    """

    name: str
    gallery: Gallery
    options: TaskOptions
    upside_down: bool = False

    @property
    def label_names(self) -> list[str]:
        return list(self.gallery.LABELS)

    @property
    def problem_type(self) -> str:
        """Name the kind of problem as the config.json of a model has it."""
        return "single_label_classification"

    @cached_property
    def looks(self) -> Looks:
        options = self.options
        return load_looks(options.model, options.cache_dir, options.images.size)

    @property
    def largest_side(self) -> int:
        """Return the side of the images that are kept, unless they are smaller."""
        return round(self.looks.size * _MARGIN)

    def load_pictures(self, split: Split) -> Pictures:
        """Find the images of one split, before they are decoded."""
        options, wanted = self.options, self.options.max_examples[split]
        found = self.gallery.load(split, options.paths[split], cache_dir=options.cache_dir)
        if not len(found):
            raise DataError(
                f"the {split} data of {self.name} must hold an image, and hold none; give others."
            )
        return subset(found, wanted, options.data_seed, of_each_client=split == "train")

    def load_examples(self, split: Split) -> StoredImages:
        options, wanted = self.options, self.options.max_examples[split]
        path, cache_dir = options.paths[split], options.cache_dir
        depends_on = {
            "task": self.name,
            "split": split,
            "source": self.gallery.source_digest(split, path, cache_dir=cache_dir),
            "subset": f"{wanted}/{options.data_seed}" if wanted else "",
            "code": options.source,
        }
        return store(
            lambda: self.load_pictures(split),
            depends_on=depends_on,
            largest_side=self.largest_side,
            cache_dir=cache_dir,
        )

    def client_names(self) -> list[str]:
        """Name the clients, if the gallery knows any."""
        return list(getattr(self.gallery, "client_names", ()))

    def owners(self, examples: Examples) -> Indices | None:
        assert isinstance(examples, StoredImages)
        return examples.owners

    def load_model(self) -> nn.Module:
        return load_image_classifier(
            self.options.model,
            num_labels=len(self.label_names),
            looks=self.looks,
            seed=self.options.seed,
            cache_dir=self.options.cache_dir,
        )

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Show a model the images of a batch; one that is being trained sees random cuts."""
        pixels = batch.tensors["pixels"]
        num, side = pixels.shape[:2]
        if model.training and self.options.images.augment:
            cuts = draw(num, side, upside_down=self.upside_down)
        else:
            cuts = whole(num, side)
        seen = self.looks.normalised(views(pixels, cuts, self.looks.size))
        found: Tensor = model(**model_inputs(model, seen)).logits
        return found

    def loss(self, model: nn.Module, batch: Batch) -> BatchLoss:
        return scoring.loss_of(self.logits(model, batch), batch.tensors["labels"])

    def count(self, model: nn.Module, batch: Batch) -> Tensor:
        return scoring.count_of(self.logits(model, batch), batch.tensors["labels"])

    def largest_batch(self, size: int) -> Batch:
        shape = (size, self.largest_side, self.largest_side, 3)
        tensors = {
            "pixels": torch.zeros(shape, dtype=torch.uint8),
            "labels": torch.zeros(size, dtype=torch.int64),
        }
        return Batch(tensors, np.arange(size))

    def save_model(self, model: nn.Module, folder: Path) -> None:
        save_image_classifier(
            model,
            folder,
            label_names=self.label_names,
            looks=self.looks,
            problem_type=self.problem_type,
        )

    def save_adapter(self, model: nn.Module, folder: Path, *, base_model: str) -> None:
        is_of_another_size = needs_telling(model, self.looks.size)
        card = image_card(
            base_model,
            self.label_names,
            self.problem_type,
            is_of_another_size=is_of_another_size,
        )
        save_adapter(model, folder, base_model=base_model, peft_type=None, card=card)
        save_looks(self.looks, folder)


def image_classification(name: str, gallery: Gallery) -> MakeTask:
    """Return what makes the task of classifying the images of a gallery.

    A task of one's own is a module that is a gallery and makes itself a task:

        LABELS = ("cat", "dog")

        def load(split, path, *, cache_dir=None):
            files = sorted(Path(path).glob("*.png"))
            labels = np.array([LABELS.index(file.name[:3]) for file in files])
            return Pictures.of(lambda number: read_image(str(files[number])), labels)

        def source_digest(split, path, *, cache_dir=None):
            return file_digest(f"{path}/index.txt")

        pets = image_classification("pets", sys.modules[__name__])
    """
    return partial(ImageClassification, name, gallery)
