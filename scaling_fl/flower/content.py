"""Letters as what Flower's messages carry: facts as one text, and parts as raw bytes.

An ``Array`` of a type of ours keeps the bytes of a payload as they are, with nothing added.
"""

import json

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from scaling_fl.core.json_text import json_text
from scaling_fl.core.letters import Letter

_FACTS, _PARTS = "facts", "parts"
_RAW = "scaling_fl.raw"


def content_of(letter: Letter) -> RecordDict:
    """Write a letter."""
    arrays = {
        name: Array(dtype="uint8", shape=(len(part),), stype=_RAW, data=part)
        for name, part in letter.parts.items()
    }
    facts = ConfigRecord({_FACTS: json_text(letter.facts)})
    return RecordDict({_FACTS: facts, _PARTS: ArrayRecord(arrays)})


def letter_of(content: RecordDict) -> Letter:
    """Read a letter.

    Raises:
        ValueError: the content is none.
    """
    try:
        facts = json.loads(str(content.config_records[_FACTS][_FACTS]))
        parts = {name: array.data for name, array in content.array_records[_PARTS].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("a message without facts and parts") from error
    if not isinstance(facts, dict):
        raise ValueError("facts that are no record")
    return Letter(facts, parts)
