"""The file of `--peaks`: TOML with an entry [[peak]] for each, understood again when it has changed."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence

from lifecycle.named_file import read_named
from lifecycle.peaks_declared import Entry, PeaksError, entries_of


class PeaksFile:
    def __init__(self, path: str, zone: str = "UTC") -> None:
        """path: "" is no file, and declares nothing. zone: of entries that name none."""
        self.path, self._zone = path, zone
        self._text = ""
        self._entries: tuple[Entry, ...] = ()

    def entries(self) -> Sequence[Entry]:
        """As it is now. Raises PeaksError, which names the file; asked again, it is read again."""
        if not self.path:
            return ()
        return read_named(self.path, "--peaks", self._meant, PeaksError)

    def _meant(self, text: str) -> Sequence[Entry]:
        if text != self._text:
            self._entries = entries_of(tomllib.loads(text), self._zone)
            self._text = text
        return self._entries
