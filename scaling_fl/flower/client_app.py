"""What Flower calls on a node: every message is a letter, and its answer is one."""

import traceback
from importlib import import_module

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from scaling_fl.core.letters import Letter
from scaling_fl.flower.content import content_of, letter_of
from scaling_fl.flower.places import place_of
from scaling_fl.flower.resident import ask_resident

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Say who this node is, or what it has for a job."""
    return _answer(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Have one of this node's clients trained."""
    return _answer(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Have one of this node's clients answer its test examples."""
    return _answer(message, context)


def _answer(message: Message, context: Context) -> Message:
    try:
        answer = _answered(letter_of(message.content), context)
    # All of them: Flower would send the text of one to the server, and it may tell of the data.
    except Exception:
        traceback.print_exc()
        answer = Letter({"failure": "failed"})
    return Message(content_of(answer), reply_to=message)


def _answered(letter: Letter, context: Context) -> Letter:
    place = place_of(context.node_config)
    if letter.facts["what"] == "who":
        return Letter(
            {
                "partition": place.partition,
                "num_partitions": int(context.node_config.get("num-partitions", 1)),
                "owns_data": place.train_path is not None,
                "owns_tests": place.test_path is not None,
            }
        )
    if "folder" in context.node_config:
        # Each message comes in a new process; the model stays in one that lasts.
        return ask_resident(letter, place)
    # A process that only asks is spared the import of torch.
    answering = import_module("scaling_fl.flower.answering")
    answer: Letter = answering.answer_here(letter, place)
    return answer
