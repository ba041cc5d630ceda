"""What Kubernetes, container registries and Google accept as a name.

Sources: RFC 1123 and https://kubernetes.io/docs/concepts/overview/working-with-objects/names for
Kubernetes; the grammar of https://pkg.go.dev/github.com/distribution/reference for images.
"""

import re

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_ACCOUNT = re.compile(rf"{_LABEL}@({_LABEL}\.)+gserviceaccount\.com")

_HOST_PART = r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?"
_HOST = rf"({_HOST_PART}(\.{_HOST_PART})*|\[[0-9a-fA-F:]+\])(:[0-9]+)?"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?P<name>({_HOST}/)?{_PART}(/{_PART})*)(:\w[\w.-]{{0,127}})?"
    r"(@[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
LONGEST_LABEL, LONGEST_SUBDOMAIN, LONGEST_IMAGE = 63, 253, 255


def is_namespace(text: str) -> bool:
    return len(text) <= LONGEST_LABEL and bool(_NAMESPACE.fullmatch(text))


def is_object_name(text: str) -> bool:
    """Say whether a service account or a Secret of Kubernetes may have that name."""
    return len(text) <= LONGEST_SUBDOMAIN and bool(_SUBDOMAIN.fullmatch(text))


def is_secret_key(text: str) -> bool:
    is_path = text in (".", "..") or text.startswith("..")
    return len(text) <= LONGEST_SUBDOMAIN and bool(_KEY.fullmatch(text)) and not is_path


def is_google_account(text: str) -> bool:
    return bool(_ACCOUNT.fullmatch(text))


def is_image(text: str) -> bool:
    match = _IMAGE.fullmatch(text)
    return match is not None and len(match["name"]) <= LONGEST_IMAGE
