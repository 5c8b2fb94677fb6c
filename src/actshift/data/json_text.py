"""Parse JSON strictly: no repeated keys, no deep nesting, and files of any size one value at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from actshift.errors import first_line, first_repeated

_CHUNK = 2**18  # characters
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")  # joined files have byte order marks within


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is not JSON, an object has a key twice, or the nesting is too deep.

    >>> parse_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: an object has the key 'a' twice
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None
    except json.JSONDecodeError as error:
        hint = "; it has NUL characters, so save the file as UTF-8" if "\0" in text[:1_000] else ""
        raise ValueError(first_line(error).rstrip(".") + hint) from error


class JsonStream:
    """A position in a JSON text of which only a part is in memory. `read` returns that many characters, or fewer."""

    def __init__(self, read: Callable[[int], str], most: int) -> None:
        self.read, self.most, self.text, self.position = read, most, "", 0
        self.decoder = json.JSONDecoder(object_pairs_hook=_unique_keys)

    def skip(self, separator: str = "") -> str:
        """Go beyond white space and at most one separator. Return the next character, or "" at the end."""
        while True:
            if space := _SPACE.match(self.text, self.position):
                self.position = space.end()
            if self.position < len(self.text):
                if self.text[self.position] != separator:
                    return self.text[self.position]
                separator, self.position = "", self.position + 1
            elif not self._read_on(_CHUNK):
                return ""

    def value(self) -> Any:
        """Return the value at the position, and go beyond it.

        Raises:
            ValueError: as `parse_json`, or the value has more than `most` characters.
        """
        size = _CHUNK
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.position)
                if end - self.position > self.most:
                    raise ValueError(f"it has more than {self.most >> 20} million characters")
                self.position = end
                return value
            except RecursionError:
                raise ValueError("its lists and objects are nested too deeply") from None
            except json.JSONDecodeError as error:
                if len(self.text) - self.position > self.most:
                    raise ValueError(f"it has more than {self.most >> 20} million characters") from error
                is_incomplete = len(self.text) - error.pos < 20 or "Unterminated string" in str(error)
                if not is_incomplete or not self._read_on(size):
                    raise ValueError(error.msg) from error
                size = min(2 * size, self.most)

    def _read_on(self, size: int) -> bool:
        """Read more text, and drop the text before the position. Return False at the end."""
        text = self.read(size)
        self.text, self.position = self.text[self.position :] + text, 0
        return bool(text)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        key = first_repeated(key for key, _ in pairs)
        raise ValueError(f"an object has the key {key[:80] if key else key!r} twice")
    return values
