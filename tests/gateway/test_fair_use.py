"""Plans, prices and peaks that cannot be used end the start with one line, before there is a directory, a port or a Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.exits import ConfigurationError
from gateway.serve import serve
from gateway.sources import load

PRICED = 'currency = "EUR"\n[running]\ndefault = 0.1\n'


@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [
        ("prices", None, "it cannot be read (no such file or directory); correct the path, or"),
        ("prices", "currency = ", "it is no TOML: Invalid value (at end of document)"),
        ("prices", PRICED + "big = 1 2", "it is no TOML: .* (at line 4, column 9)"),
        ("prices", PRICED + "big = -0.5", "running.big: must be a price such as 0.10, not -0.5"),
        ("prices", PRICED + "big = '0.5'", "running.big: must be a price such as 0.10, not '0.5'"),
        ("prices", PRICED + "big = nan", "running.big: must be a price such as 0.10, not nan"),
        ("prices", PRICED + "big = 1e400", "running.big: must be a price"),
        ("prices", PRICED + "big = 1" + "0" * 5000, "it is no TOML: "),
        (
            "prices",
            PRICED + "m7i.large = 1",
            'running.m7i: put a name with dots in quotes, as in "',
        ),
        (
            "prices",
            PRICED + "[stored]\ngib-mont = 1",
            "stored.gib-mont: is not known; did you mean",
        ),
        ("prices", PRICED + "[runing]", "runing: is not known; did you mean running?"),
        ("prices", b"\xff", "it is no text in UTF-8 (byte 0)"),
        ("plans", None, "it cannot be read (no such file or directory); correct the path, or"),
        ("plans", "[plans.pro]\nkeep = yes", "it is no TOML: Invalid value (at line 2, column 8)"),
        ("plans", "[plans.pro]\nidel-timeout = 1", "plans.pro: there is no idel-timeout; did you"),
        ("plans", "[plans.pro]\nretention = -1", "plans.pro: retention must be 0 or more, not -1"),
        ("plans", "[plans.pro.quota]\nrunning = 'x'", "plans.pro.quota: running must be a whole"),
        ("plans", "[plan.pro]", "the file: there is no plan; did you mean plans?"),
        ("peaks", None, "it cannot be read (no such file or directory); correct the path, or"),
        ("peaks", "[[peak]]\nname = exam", "it is no TOML: Invalid value (at line 2, column 8)"),
        (
            "peaks",
            "[[peak]]\nname = 'x'\ncron = '0 9 * * *'\nusers = 0",
            "peak x: users: must be a whole number from",
        ),
        ("peaks", b"\xff", "it is no text in UTF-8 (byte 0)"),
        ("plans", b"\xff", "it is no text in UTF-8 (byte 0)"),
    ],
)
def test_a_file_that_cannot_be_used_ends_the_start_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, text: str | bytes | None, words: str
) -> None:
    monkeypatch.setattr("gateway.serve.configure", lambda *_: None)  # of the whole process
    file, data = tmp_path / f"{flag}.toml", tmp_path / "data"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError) as caught:
        serve(load({flag: str(file), "data_dir": str(data), "port": 0}, {}))
    said = str(caught.value)
    assert said.startswith(f"--{flag} {file}: ")
    first, _, last = words.partition(".*")
    assert first in said
    assert last in said
    assert "\n" not in said
    assert len(said) < 300 + len(str(file))
    assert not data.exists()
