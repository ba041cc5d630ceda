"""Keep secrets out of everything that is printed or stored."""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
# Shorter values are words more often than secrets: hiding them would garble a record, and the
# places in it where "***" then stands would tell the secret.
SHORTEST_SECRET = 8
SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|ACCESS_KEY|API_KEY)$", re.IGNORECASE)
# A password that was not percent-encoded may hold "@", "/" or ":"; what stands before the last
# "@" of a database address is hidden, whatever it is.
DATABASE_URI = re.compile(r"mongodb(?:\+srv)?://[^\s'\"<>]*", re.IGNORECASE)
USER_INFO = re.compile(r"://[^\s/@'\"]+@")


def redact_uri(uri: str) -> str:
    """Return scheme, hosts and path of an address; the user, the password and the options go."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return rest or scheme.rpartition("@")[2].partition("?")[0]
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Hide the user info of every address in a text, and every secret given."""
    text = DATABASE_URI.sub(lambda match: redact_uri(match.group()), text)
    text = USER_INFO.sub(f"://{HIDDEN}@", text)
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Collect what must not be shown: values of variables named like secrets, and URI passwords."""
    found = {value for name, value in environ.items() if SECRET_NAME.search(name)}
    for value in environ.values():
        # In the address of a database, a plain "/" may be a part of the password.
        if DATABASE_URI.match(value):
            found.add(value.partition("://")[2].rpartition("@")[0].partition(":")[2])
        elif user_info := USER_INFO.search(value):
            found.add(user_info.group()[3:-1].partition(":")[2])
    spellings = {f(s) for s in found for f in (str, quote, quote_plus, unquote, _fully_quoted)}
    # The longest first: one secret may be a part of another.
    return tuple(sorted((s for s in spellings if len(s) >= SHORTEST_SECRET), key=len, reverse=True))


def _fully_quoted(secret: str) -> str:
    return quote(secret, safe="")
