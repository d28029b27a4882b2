"""What is known of a workspace's address, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway import routes
from gateway.routes import Routes
from lifecycle.model import Event, Workspace, WorkspaceStatus
from lifecycle.stores import StoreUnavailable

RUNNING = Workspace("w1", "ada", WorkspaceStatus.RUNNING, 0, 0, address="127.0.0.1:7000")


class Store:
    def __init__(self) -> None:
        self.record: Workspace | None = RUNNING
        self.away = False
        self.asked = 0

    async def get(self, workspace_id: str) -> Workspace | None:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")
        return self.record


@pytest.fixture
def store() -> Store:
    return Store()


async def test_a_running_one_is_asked_for_once(store: Store) -> None:
    known = Routes(store)  # type: ignore[arg-type]
    assert [await known.find("w1") for _ in range(3)] == [RUNNING] * 3
    assert store.asked == 1


async def test_one_that_does_not_run_is_asked_for_each_time(store: Store) -> None:
    known = Routes(store)  # type: ignore[arg-type]
    store.record = replace(RUNNING, status=WorkspaceStatus.STARTING)
    assert (await known.find("w1")) == store.record
    store.record = RUNNING
    assert (await known.find("w1")) == RUNNING
    store.record = None
    known.on_event(Event("1-0", "workspace.deleted", {"workspace": "w1"}))
    assert await known.find("w1") is None


async def test_an_absent_store_is_waited_for_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Routes(store)  # type: ignore[arg-type]
    monkeypatch.setattr(routes, "FRESH", 0.0)
    await known.find("w1")
    monkeypatch.setattr(routes, "FRESH", 30.0)
    store.away, store.asked = True, 0
    assert [await known.find("w1") for _ in range(3)] == [RUNNING] * 3
    assert store.asked == 1
    with pytest.raises(StoreUnavailable):
        await known.find("w2")


async def test_news_of_a_change_is_believed_over_what_is_known(store: Store) -> None:
    known = Routes(store)  # type: ignore[arg-type]
    await known.find("w1")
    known.on_event(Event("1-0", "workspace.stopping", {"workspace": "w1"}))
    store.record = replace(RUNNING, status=WorkspaceStatus.STOPPING)
    assert await known.find("w1") == store.record
