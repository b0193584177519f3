"""The token that a client must show where a server can be reached from elsewhere."""

from __future__ import annotations

import hmac
from pathlib import Path

from squeezedet.errors import UsageError

MIN_LENGTH = 16
MAX_LENGTH = 1024
CHALLENGE = "Bearer"


def read_token(path: Path) -> str:
    """The token in a file: one line of printable ASCII without blanks.

    Raises:
        UsageError: the file cannot be read, or holds no good token.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LENGTH + 2)
    except OSError as error:
        raise UsageError(f"--token {path}: {error.strerror or error}") from error
    token = content.strip().decode("ascii", errors="replace")
    if not MIN_LENGTH <= len(token) <= MAX_LENGTH or not all("!" <= sign <= "~" for sign in token):
        raise UsageError(
            f"--token {path}: a token is one line of {MIN_LENGTH} to {MAX_LENGTH} ASCII signs "
            "without blanks; make one with: python -c 'import secrets; "
            "print(secrets.token_urlsafe())'"
        )
    return token


def accepts(token: str, shown: str) -> bool:
    """Whether the token that a client shows is the right one, compared in constant time."""
    # JSON can hold half a surrogate pair, which is no text that can be encoded as it is.
    return hmac.compare_digest(shown.encode(errors="surrogatepass"), token.encode())


def bearer(authorization: str) -> str:
    """The token of an ``Authorization`` header, "" if it holds none."""
    scheme, _, token = authorization.strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
