"""The file of `--peaks`: TOML with an entry [[peak]] for each, read again when it has changed."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from lifecycle.peaks_declared import Entry, PeaksError, entries_of


class PeaksFile:
    def __init__(self, path: str, zone: str = "UTC") -> None:
        """path: "" is no file, and declares nothing. zone: of entries that name none."""
        self.path, self._zone = path, zone
        self._seen: tuple[int, int, int] | None = None
        self._entries: tuple[Entry, ...] = ()

    def entries(self) -> Sequence[Entry]:
        """As it is now. Raises PeaksError, which names the file; asked again, it is read again."""
        if not self.path:
            return ()
        try:
            about = Path(self.path).stat()
            seen = (about.st_mtime_ns, about.st_size, about.st_ino)
            if seen != self._seen:
                table = tomllib.loads(Path(self.path).read_text("utf-8"))
                self._entries = entries_of(table, self._zone)
                self._seen = seen
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise PeaksError(
                f"{self.path}: it cannot be read ({why}); correct the path, or leave --peaks out"
            ) from error
        except UnicodeDecodeError as error:
            raise PeaksError(f"{self.path}: it is no text in UTF-8 (byte {error.start})") from error
        except PeaksError as error:
            raise PeaksError(f"{self.path}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise PeaksError(f"{self.path}: it is no TOML: {error}") from error
        return self._entries
