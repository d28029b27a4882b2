from __future__ import annotations

import pytest

from lifecycle.agent.command import PLACEHOLDERS, Command, fill
from lifecycle.agent.refusal import BootFailed

VALUES = {
    "host": "10.0.0.7",
    "port": "4321",
    "workspace": "demo",
    "dir": "/with space/home",
    "base_url": "/",
    "secret": "s 'quoted' {port}",
}


def test_every_placeholder_has_a_value() -> None:
    assert set(VALUES) == set(PLACEHOLDERS)


def test_words_are_filled_after_they_are_split() -> None:
    assert fill("ide --ip={host}", VALUES).argv == ("ide", "--ip=10.0.0.7")
    command = fill("ide --port={port} --dir {dir} '{workspace} is mine'", VALUES)
    assert command.argv == ("ide", "--port=4321", "--dir", "/with space/home", "demo is mine")
    assert command.environment == {}


def test_leading_assignments_are_environment_and_nothing_in_a_value_is_filled_again() -> None:
    assert fill("A=1 TOKEN={secret} EMPTY= ide B=2", VALUES) == Command(
        {"A": "1", "TOKEN": "s 'quoted' {port}", "EMPTY": ""}, ("ide", "B=2")
    )


def test_other_braces_stay() -> None:
    assert fill("""ide --config '{"a": {}, "b": 1}'""", VALUES).argv[2] == '{"a": {}, "b": 1}'


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "it names no program"),
        ("A=1", "it names no program"),
        ("ide 'open", "cannot be split into words (No closing quotation)"),
        ("ide {prot}", "{prot} is not known; known are {host} {port} {workspace} {dir}"),
        ("ide a\0b", "NUL"),
    ],
)
def test_a_wrong_template_says_what_is_wrong(template: str, says: str) -> None:
    with pytest.raises(BootFailed) as failed:
        fill(template, VALUES)
    assert failed.value.code == "bad_command"
    assert says in str(failed.value)
    assert "Set --workspace-command" in str(failed.value)
