"""What a run would understand of its conversations, before a model is trained on them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_fl.composition.data import count_clients, load_data
from scaling_fl.composition.inspection import NUM_EXAMPLES, quantiles_of
from scaling_fl.config import Config
from scaling_fl.learning.tasks.instruction.examples import InstructionExamples
from scaling_fl.learning.tasks.instruction.family import InstructionTuning


@dataclass(frozen=True, kw_only=True)
class SplitOfConversations:
    """One split; its lengths are those of what is left after the cut at max_seq_len, in tokens."""

    path: str | None
    num_examples: int
    num_left_out: int
    """Conversations without a token of an answer before the cut."""
    num_cut: int
    lengths: list[int]
    num_learned_tokens: int


@dataclass(frozen=True, kw_only=True)
class ShownConversation:
    """A conversation as the model will see it, special tokens included."""

    num_tokens: int
    text: str
    learned: str
    """The part of the text that is learned."""


@dataclass(frozen=True, kw_only=True)
class LookAtConversations:
    """The whole of it."""

    task_name: str
    model: str
    template: str
    max_seq_len: int
    train: SplitOfConversations
    test: SplitOfConversations
    partition: str
    client_names: list[str] | None
    sizes: list[int]
    """Conversations of each client."""
    tokens: list[int]
    """Tokens of each client."""
    examples: list[ShownConversation]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data, the lengths by their quantiles."""
        found = asdict(self)
        for name, split in (("train", self.train), ("test", self.test)):
            found[name]["lengths"] = quantiles_of(split.lengths)
        return found


def look_at_conversations(
    config: Config, task: InstructionTuning, stage: Callable[[str], None]
) -> LookAtConversations:
    """Read and tokenise conversations as a run would, and deal them to the clients.

    Raises:
        UserError: the run itself would refuse the data.
    """
    data = load_data(config, count_clients(config, len(config.site_ids)), stage)
    assert isinstance(data.train, InstructionExamples)
    assert isinstance(data.test, InstructionExamples)
    column = f"one for each {config.partition.column}"
    return LookAtConversations(
        task_name=config.task_name,
        model=config.model,
        template=task.meaning["template"],
        max_seq_len=config.max_seq_len,
        train=_split(data.train, config.train_path),
        test=_split(data.test, config.test_path),
        partition=column if data.client_names else f"partition.kind={config.partition_kind}",
        client_names=data.client_names,
        sizes=[len(part) for part in data.partitions],
        tokens=[int(data.train.lengths[part].sum()) for part in data.partitions],
        examples=[_shown(data.train, n, task) for n in range(min(NUM_EXAMPLES, len(data.train)))],
        notes=[*data.notes, *data.caveats],
    )


def _split(examples: InstructionExamples, path: str | None) -> SplitOfConversations:
    return SplitOfConversations(
        path=path,
        num_examples=len(examples),
        num_left_out=examples.num_left_out,
        num_cut=examples.num_cut,
        lengths=examples.lengths.tolist(),
        num_learned_tokens=int(examples.trained.sum()),
    )


def _shown(examples: InstructionExamples, index: int, task: InstructionTuning) -> ShownConversation:
    span = slice(examples.offsets[index], examples.offsets[index + 1])
    ids, trained = examples.token_ids[span], examples.trained[span] > 0

    def text(tokens: NDArray[np.int32]) -> str:
        return str(task.tokenizer.decode(tokens.tolist()))

    return ShownConversation(num_tokens=len(ids), text=text(ids), learned=text(ids[trained]))
