"""Names and times as text."""

from __future__ import annotations

import re
import time

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def to_text(data: bytes) -> str:
    """`data` as text; bytes that are no UTF-8 become backslash escapes."""
    return data.decode("utf-8", "backslashreplace")


def printable(data: bytes) -> str:
    """`data` as text that stays on its line: control characters, too, become backslash escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), to_text(data))


def timestamp(seconds: float) -> bytes:
    """UTC with milliseconds, as in `2026-11-23T22:33:47.726Z` (RFC 3339), of `seconds` since the epoch."""
    milliseconds = int(seconds * 1000)
    whole, fraction = divmod(milliseconds, 1000)
    return b"%b.%03dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)).encode(), fraction)
