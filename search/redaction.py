"""Text that is shown to others: what looks like a credential is blotted out."""

import re

SECRET = re.compile(r"(://)[^/@\s]+@|((?:token|key|secret|password|sig\w*)=)[^&\s'\"]+", re.I)


def without_secrets(text: str) -> str:
    """The text with what looks like a credential in an address blotted out.

    >>> without_secrets("https://me:pw@host/a.zip?sig=abc")
    'https://***@host/a.zip?sig=***'
    """
    return SECRET.sub(lambda m: f"{m.group(1)}***@" if m.group(1) else f"{m.group(2)}***", text)
