"""All workloads by their names, and the one place that reads files for them.

    diurnal:users=1500,days=2    recorded:day.csv    events:day.json,zone=Europe/Berlin    flights:users=1500

Errors: WorkloadError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lifecycle.simulation import happened, occupancy, recorded
from lifecycle.simulation.datasets import DATASETS
from lifecycle.simulation.generated import MODELS
from lifecycle.simulation.records import Workload
from lifecycle.simulation.spec import Asked, Parameter, WorkloadError, asked, meant

LARGEST = 512 * 2**20
"""Bytes of a file; with more, visits would take many GiB."""

Make = Callable[[str, str, Mapping[str, Any], int], Workload]
"""(as it was asked for, file, parameters' values, seed)"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A name's meaning. file: a name for what it is read from, "" if from none."""

    means: str
    parameters: Mapping[str, Parameter]
    make: Make
    file: str = ""


def kind_of(wanted: Asked) -> Kind:
    """Raises WorkloadError: it is unknown, or has a file too many or too few."""
    if wanted.name not in KINDS:
        near = f"; for a file: recorded:{wanted.name}" if Path(wanted.name).suffix else ""
        raise WorkloadError(f"there is no workload {meant(wanted.name, KINDS)}{near}")
    kind = KINDS[wanted.name]
    if kind.file and not wanted.file:
        raise WorkloadError(f"{wanted.name}: name the file, as in {wanted.name}:{kind.file}")
    if wanted.file and not kind.file:
        raise WorkloadError(
            f"{wanted.name}: {wanted.file:.60} is no parameter; write NAME=VALUE, of: {', '.join(kind.parameters)}"
        )
    return kind


def workload(text: str, seed: int) -> Workload:
    """What a specification asks for. The same text and seed make the same workload. Raises WorkloadError."""
    wanted = asked(text)
    kind = kind_of(wanted)
    try:
        return kind.make(text, wanted.file, wanted.read(kind.parameters), seed)
    except WorkloadError as error:
        if wanted.file or str(error).startswith(wanted.name):
            raise
        raise type(error)(f"{wanted.name}: {error}") from None


def _file(
    read: Callable[..., Workload], name: str, file: str, values: Mapping[str, Any], seed: int
) -> Workload:
    return read(name, file, text_of(file), values, seed)


def text_of(file: str) -> str:
    """Raises WorkloadError."""
    try:
        if (size := Path(file).stat().st_size) > LARGEST:
            raise WorkloadError(
                f"{file}: its {size:,} bytes are more than {LARGEST:,}; cut a few days out of it"
            )
        return Path(file).read_text("utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise WorkloadError(f"{file}: it cannot be read ({reason}); correct the path") from None
    except UnicodeDecodeError as error:
        raise WorkloadError(
            f"{file}: it is no text in UTF-8 (byte {error.start}); save it as UTF-8, as iconv -t UTF-8 does"
        ) from None


def _seeded(
    make: Callable[[str, Mapping[str, Any], int], Workload],
    name: str, file: str, values: Mapping[str, Any], seed: int,
) -> Workload:  # fmt: skip
    return make(name, values, seed)


def _of_file(
    means: str, parameters: Mapping[str, Parameter], read: Callable[..., Workload], file: str
) -> Kind:
    return Kind(means, parameters, partial(_file, read), file)


KINDS: Mapping[str, Kind] = {
    **{
        name: Kind(m.means, m.parameters, partial(_seeded, m.workload))
        for name, m in MODELS.items()
    },
    **{
        name: Kind(d.means, d.parameters, partial(_seeded, d.workload))
        for name, d in DATASETS.items()
    },
    "recorded": _of_file(
        "visits of a CSV or JSON lines file", recorded.PARAMETERS, recorded.workload, "visits.csv"
    ),
    "events": _of_file(
        "the export of GET /api/events", happened.PARAMETERS, happened.workload, "day.json"
    ),
    "occupancy": _of_file(
        "how many were there", occupancy.PARAMETERS, occupancy.workload, "there.csv"
    ),
}
