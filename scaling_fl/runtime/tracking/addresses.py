"""What the addresses of trackers have in common: they may hold a password, which nothing shows."""

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.redaction import redact, secrets_of


class SettingsError(UserError):
    """The environment names a tracker wrongly."""


def check_user_info(variable: str, uri: str) -> None:
    """Refuse an address whose user or password would be read as a part of the host.

    Raises:
        SettingsError: they are not percent-encoded.
    """
    user_info = uri.partition("?")[0].partition("://")[2].rpartition("@")[0]
    user, _, password = user_info.partition(":")
    if any(character in user + password for character in ":/@"):
        raise SettingsError(
            f"the user and the password in {variable} must be percent-encoded, got one with a "
            "plain ':', '/' or '@'; write %3A, %2F or %40 for these."
        )


def clean_text(error: Exception, uri: str) -> str:
    """Return the beginning of an error's text, in one line and without the secrets of ``uri``."""
    return " ".join(redact(str(error), secrets_of({"uri": uri})).split())[:200]
