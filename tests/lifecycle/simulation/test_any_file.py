"""Whatever is in a file: a workload comes of it, or an error in words that names the file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.simulation import happened, occupancy, recorded
from lifecycle.simulation.records import BEFORE
from lifecycle.simulation.spec import Asked, WorkloadError

READERS = {"recorded": recorded, "events": happened, "occupancy": occupancy}

NAMES = st.sampled_from(
    [
        "at",
        "seconds",
        "until",
        "user",
        "users",
        "priority",
        "type",
        "sessionId",
        "workspaceId",
        "gateway",
        "x",
    ]
)
TIMES = st.sampled_from(
    [
        "2025-11-23T20:00:00Z",
        "2025-11-24T09:00:00Z",
        "2025-11-24 09:00",
        "1763974800",
        "2025-10-26T02:30",
        "0001-01-01T00:00",
        "9999-12-31T23:59:59-12:00",
    ]
)
CELLS = st.one_of(
    TIMES,
    st.sampled_from(["-5", "1e400", "nan", "", "5", '"', '""', "vip", "٣", "1_0", "0x10"]),
    st.text(max_size=6),
)
VALUES = st.one_of(
    CELLS, st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from([1763974800, 1763974800000, 1763974860000]),
    st.sampled_from(["session.opened", "session.closed", "workspace.queued", "workspace.stopped", "gateway.lost"]),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.none(), max_size=1),
)  # fmt: skip
CSV = st.lists(NAMES, min_size=1, max_size=4, unique=True).flatmap(
    lambda head: st.lists(st.lists(CELLS, min_size=len(head), max_size=len(head)), max_size=4).map(
        lambda rows: "\n".join(",".join(row) for row in [head, *rows])
    )
)
JSON = st.builds(
    lambda rows, as_array: json.dumps(rows) if as_array else "\n".join(map(json.dumps, rows)),
    st.lists(st.dictionaries(NAMES, VALUES, max_size=6), max_size=5), st.booleans(),
)  # fmt: skip


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150)
@given(text=st.one_of(CSV, JSON, st.text()), day=st.sampled_from([{}, {"day": "2025-11-24"}]))
def test_no_other_error(name: str, text: str, day: dict[str, str]) -> None:
    reader = READERS[name]
    values = Asked(name, "f", {"zone": "Europe/Berlin", **day}).read(reader.PARAMETERS)
    try:
        visits, said = reader.workload("w", "f", text, values, 1).visits, "f:"
    except WorkloadError as error:
        visits, said = (), str(error)
    assert said.startswith(("f:", "w:"))
    earliest = -BEFORE if day else 0
    assert all(visit.at >= earliest and visit.seconds >= 1 for visit in visits)
    assert said or visits[-1].at >= 0
