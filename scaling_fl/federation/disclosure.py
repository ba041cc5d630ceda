"""What a round may tell whoever reads its record."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Disclosure:
    """What is told of a round beside its state; with noise, no more than epsilon covers.

    Without noise everything is told. With noise, whatever a job leaves (checkpoints, journal, run
    folder, database, console, exit code) tells of the training data only the noisy states and what
    follows from them alone: validation metrics, digests, an adaptive clip. So epsilon holds for all
    of it together:

    - unit=client: for one client, all its examples together. Neighbours differ in whether a client
      takes part (add_or_remove_one), or in all data of one client (replace_one).
    - unit=group: for one group of a client's examples, in the same two ways. Which clients take
      part is not protected, and their number may be read from the bytes.

    Not covered: times, because how long a round takes depends on who was drawn and on their
    examples; the number of clients and the settings, which count as public; the test data; and a
    start that is refused because a file cannot be read as the task needs it.
    """

    of_clients: bool = True
    """What depends on single clients: their reports, the means of these, and how far they are."""
    of_bytes: bool = True
    """How many bytes were sent; with secret draws, the bytes may tell who or how many took part."""
