"""The boot queue when there is one slot: who is next, what people are told, what happens when it is full."""

from __future__ import annotations

from typing import Any

from tests.e2e.harness import IDE_FLAGS, Client

ONE_SLOT = (
    *IDE_FLAGS,
    "--max-machines", "1", "--slots", "1", "--scale-interval", "0.3", "--max-queue", "3",
)  # fmt: skip


async def create(client: Client, user: str, priority: str = "") -> dict[str, Any]:
    body = {"userId": user} | ({"priority": priority} if priority else {})
    status, workspace = await client.api("POST", "/api/workspaces", body)
    assert status == 202, workspace
    return dict(workspace)


async def position(client: Client, workspace: dict[str, Any]) -> int:
    record = await client.status(workspace)
    assert record["status"] == "queued"
    assert record["queue"]["etaSeconds"] > 0
    return int(record["queue"]["position"])


async def act(client: Client, workspace: dict[str, Any], what: str) -> dict[str, Any]:
    status, record = await client.api("POST", f"/api/workspaces/{workspace['workspaceId']}/{what}")
    assert status in (200, 202), record
    return dict(record)


async def test_one_slot_and_a_queue_before_it(serve: Any, client_of: Any) -> None:
    client = client_of(await serve(*ONE_SLOT))
    first = await client.running("ada")

    # Whoever is worth more overtakes; everybody sees their own place.
    bob = await create(client, "bob")
    assert bob["queue"]["position"] == 1
    cy = await create(client, "cy")
    assert cy["queue"]["position"] == 2
    eve = await create(client, "eve", "vip")
    assert eve["queue"]["position"] == 1
    assert [await position(client, w) for w in (eve, bob, cy)] == [1, 2, 3]

    # Asking again moves nobody, and takes no second place.
    assert (await create(client, "cy"))["queue"]["position"] == 3

    # At the bound newcomers are told when to come back; nothing of theirs waits.
    async with client.http.post(
        client.at("/api/workspaces"),
        json={"userId": "dan"},
        headers={"Authorization": f"Bearer {client.gateway.key}"},
    ) as refused:
        answer = await refused.json()
        assert refused.status == 429, answer
        assert int(refused.headers["Retry-After"]) > 0
        assert answer["error"]["retryAfter"] == int(refused.headers["Retry-After"])
    _, rows = await client.api("GET", "/api/workspaces?userId=dan")
    assert [row["status"] for row in rows] in ([], ["stopped"])

    # One that does not wait any longer leaves, and the others move up.
    left = await act(client, bob, "stop")
    assert (left["status"], left["queue"]) == ("stopped", None)
    assert [await position(client, w) for w in (eve, cy)] == [1, 2]
    dan = await create(client, "dan")
    assert dan["queue"]["position"] == 3

    # The slot goes to the first, then to the next.
    await act(client, first, "stop")
    # There or on the one machine that takes its place: whose files are in the way goes first.
    await client.becomes(eve, "running")
    assert [await position(client, w) for w in (cy, dan)] == [1, 2]
    await act(client, eve, "stop")
    await client.becomes(cy, "running")
    assert await position(client, dan) == 1
    _, machines = await client.api("GET", "/api/machines")
    assert [(m["instanceId"], m["occupied"]) for m in machines] == [("m-1", 1)]
    told = await client.events()
    assert told.count("workspace.starting") == 3


async def test_a_full_slot_and_files_at_home(serve: Any, client_of: Any) -> None:
    """Files are on the only machine: whoever comes back waits for its slot, and finds them."""
    client = client_of(await serve(*ONE_SLOT))
    ada = await client.running("ada")
    token = (await client.enter(ada))["token"]
    await client.ide(ada, "PUT", "/files/a.txt", token=token, data=b"mine")
    await act(client, ada, "stop")
    await client.becomes(ada, "stopped")
    bob = await client.running("bob")
    await create(client, "ada", "vip")
    assert await position(client, ada) == 1
    await act(client, bob, "stop")
    assert (await client.becomes(ada, "running"))["epoch"] == 2
    assert await client.ide(ada, "GET", "/files/a.txt", token=token) == (200, b"mine")
