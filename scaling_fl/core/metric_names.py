"""What the name of a metric says: ``validation.f1.sport`` is of a class, ``train.loss`` of all."""

_OF_QUESTIONS = ("accuracy", "accuracy_norm")


def is_of_all(name: str) -> bool:
    """Say whether a metric is of all examples; others are of a class, a subject or a tier.

    One of a file of questions has its name between two dots: ``validation.mmlu.accuracy``.
    """
    num_dots = name.count(".")
    return num_dots == 1 or (num_dots == 2 and name.rpartition(".")[2] in _OF_QUESTIONS)
