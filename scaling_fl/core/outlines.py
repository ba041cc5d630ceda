"""Outlines of models: a config.json without weights, which says how large a model is."""

from pathlib import Path

_WEIGHTS = ("*.safetensors*", "*.bin*", "*.gguf", "*.h5", "*.msgpack", "*.pt", "*.pth")


def outline_of(model: str) -> Path | None:
    """Return the config.json that is all there is of a model; None: it may have weights, too.

    ``model`` names that file, or a folder with it.
    """
    place = Path(model).expanduser()
    if place.suffix == ".json":
        return place if place.is_file() else None
    file = place / "config.json"
    if not file.is_file() or any(next(place.glob(pattern), None) for pattern in _WEIGHTS):
        return None
    return file
