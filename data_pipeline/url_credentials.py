"""Addresses that hold credentials: used as they are, shown and kept without them.

A password before the host and a token in the query are both common: presigned links of object
stores are nothing else. What is written anywhere (run folder, report, log, message) goes through
`without_secrets` first.
"""

import base64
import re
from urllib.parse import unquote, urlsplit, urlunsplit

BLOT = "***"
SECRET = re.compile(
    r"(://)[^/?#\s]*@"
    r"|([\w.~%-]*(?:token|key|secret|passw|pwd|sig|credential|auth|session|code|sas)[\w.~%-]*=)"
    r"[^&#\s'\"]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """The text with everything that looks like a credential in an address masked.

    >>> without_secrets("https://me:pw@host/a.zip?sig=abc&version=2")
    'https://***@host/a.zip?sig=***&version=2'
    """
    return SECRET.sub(
        lambda found: f"://{BLOT}@" if found.group(1) else f"{found.group(2)}{BLOT}", text
    )


def has_secrets(address: str) -> bool:
    """Whether an address holds credentials, or their mask."""
    return SECRET.search(address) is not None


def is_blotted(address: str) -> bool:
    """Whether an address is what `without_secrets` left of one that held credentials."""
    return BLOT in address and without_secrets(address) == address


def split_login(url: str) -> tuple[str, str | None]:
    """The URL without user and password, and the Authorization header that says them.

    >>> split_login("https://me:pw@host/a.zip")
    ('https://host/a.zip', 'Basic bWU6cHc=')
    """
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = login.partition(":")
    said = f"{unquote(user)}:{unquote(password)}".encode()
    return urlunsplit(parts._replace(netloc=host)), f"Basic {base64.b64encode(said).decode()}"
