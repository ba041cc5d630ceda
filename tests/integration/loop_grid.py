"""A grid whose nodes are in this process, each with a number and a folder of its own."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from one_process import QuickRun

from scaling_fl.flower.client_app import app as client_app
from scaling_fl.flower.grid_office import GridOffice, Patience
from scaling_fl.flower.secure_office import SecureOffice

Tamper = Callable[[Message, Message], Message | None]
"""(letter, answer) -> what arrives in place of the answer; None: nothing."""


class LoopGrid(Grid):
    """Runs the client app of every node when a message is sent to it.

    ``node_ids`` are Flower's, in the order of the nodes; those in ``away`` are not listed.
    """

    def __init__(self, node_ids: Iterable[int], tamper: Tamper | None = None) -> None:
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
        ids = list(node_ids)
        self.contexts = {
            node: self._context(node, {"partition-id": n, "num-partitions": len(ids)})
            for n, node in enumerate(ids)
        }
        self.tamper, self.away = tamper, set[int]()
        self.bytes_of_payloads = 0
        self._identities = map(str, itertools.count(1))
        self._replies: dict[str, Message] = {}

    def configure(self, node: int, **more: Any) -> None:
        """Give a node more than its number, as its operator does."""
        self.contexts[node] = self._context(node, {**self.contexts[node].node_config, **more})

    @staticmethod
    def _context(node: int, config: dict[str, Any]) -> Context:
        return Context(
            run_id=1, node_id=node, node_config=config, state=RecordDict(), run_config={}
        )

    # A grid must have these four; no office calls them.

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return set(self.contexts) - self.away

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        identities = []
        for message in messages:
            identity = next(self._identities)
            message.metadata._message_id = identity
            message.metadata._src_node_id = 1
            reply: Message | None = client_app(message, self.contexts[message.metadata.dst_node_id])
            for each in (message, reply):
                arrays = each.content.array_records.get("parts", {})
                self.bytes_of_payloads += sum(len(array.data) for array in arrays.values())
            if self.tamper:
                reply = self.tamper(message, reply)
            if reply:
                self._replies[identity] = reply
            identities.append(identity)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(name) for name in list(message_ids) if name in self._replies]


def broken(message: Message, code: int, reason: str) -> Message:
    """Answer as Flower does where a node failed."""
    return Message(Error(code, reason), reply_to=message)


def run_on_nodes(
    run: QuickRun, grid: LoopGrid, patience: Patience | None = None, *, is_secure: bool = False
) -> QuickRun:
    """Run a federation whose clients are on the nodes of a grid."""
    office = GridOffice(grid, patience or Patience(), lambda: None)
    return run.start_here(office=SecureOffice(office) if is_secure else office)
