"""What is sent between processes and machines: facts as JSON, and named bytes beside them."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scaling_fl.core.json_text import json_text

SUM, INTEGERS, TRAFFIC = -1, "integers", "traffic"
"""In place of a client, who the letter with the sum of all is from; the part that the sum is in;
and the fact with a row for each client: its number, the bytes it received, those it sent."""
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Letter:
    """Facts (plain data, in which a number that is not finite becomes None), and bytes by name."""

    facts: Mapping[str, Any]
    parts: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """The bytes of the parts, which are those that are counted."""
        return sum(map(len, self.parts.values()))

    def to_bytes(self) -> bytes:
        """Write the letter as one frame: the length of a JSON head, the head, the parts."""
        sizes = {name: len(part) for name, part in self.parts.items()}
        head = json_text({"facts": self.facts, "sizes": sizes}).encode()
        return b"".join((_LENGTH.pack(len(head)), head, *self.parts.values()))

    @classmethod
    def from_bytes(cls, frame: bytes) -> "Letter":
        """Undo ``to_bytes``.

        Raises:
            ValueError: the frame was cut off.
        """
        view = memoryview(frame)
        try:
            (length,) = _LENGTH.unpack_from(view)
            begin = _LENGTH.size + length
            head = json.loads(bytes(view[_LENGTH.size : begin]))
            parts = {}
            for name, size in head["sizes"].items():
                parts[name] = bytes(view[begin : begin + size])
                begin += size
        except (struct.error, KeyError, AttributeError, TypeError) as error:
            raise ValueError("a letter was damaged on its way") from error
        if begin != len(frame):
            raise ValueError(f"a letter must have {begin} bytes, got {len(frame)}")
        return cls(head["facts"], parts)
