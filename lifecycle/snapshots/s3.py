"""Snapshots in S3: {prefix}/{workspace}/{snapshot}.tar.zst and {snapshot}.json beside it.

The manifest is the commit. It is written last, only if S3 says of the archive that it has the very bytes
of the manifest, and only if there is none yet (If-None-Match). Archives go up and come back in parts,
each checked by itself and tried again by itself.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from lifecycle.agent.contract import Manifest
from lifecycle.aws import client, code_of, explain, failures
from lifecycle.snapshots import SnapshotError
from lifecycle.snapshots.files import NO_ROOM, HashingWriter, new_file, translate
from lifecycle.snapshots.manifests import archive_name, check_id, dump, load, manifest_name

log = logging.getLogger(__name__)

PART = 16 * 2**20
MOST_PARTS = 10_000  # of S3
PARALLEL = 4  # parts in memory at once: 64 MiB
PATIENCE = 12.0  # seconds that the bucket may take to be found usable
READS = 5
"""Tries for the body of a part: boto repeats requests, not bodies that break off."""

_MISSING = {"NoSuchKey", "404"}
_THERE = {"PreconditionFailed", "412", "ConditionalRequestConflict"}
T = TypeVar("T")
Ids = list[str]  # within the class, `list` is its method


@dataclass(frozen=True, slots=True)
class Parts:
    """An archive as it lies on this disk: its parts' size and hashes, and the one over all."""

    size: int
    part: int
    hashes: tuple[bytes, ...]
    sha256: str

    @property
    def checksum(self) -> str:
        """What S3 keeps for the object: the hash, or of several parts the hash of their hashes."""
        if len(self.hashes) == 1:
            return base64.b64encode(self.hashes[0]).decode()
        whole = hashlib.sha256(b"".join(self.hashes)).digest()
        return base64.b64encode(whole).decode()


class S3Target:
    """A SnapshotTarget. Every method runs a loop of its own: call them in a thread."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        kms_key: str = "",
        region: str = "",
        part: int = PART,
    ) -> None:
        """kms_key: id or ARN of the key that encrypts; "" = S3's own. part: bytes, 5 MiB at least."""
        self._bucket, self._prefix = bucket, prefix.strip("/")
        self._region, self._part = region, part
        self._encryption = {"ServerSideEncryption": "AES256"}
        if kms_key:
            self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key}

    def check(self) -> None:
        """For the start: the bucket is there, ours, and where we look. Raises SnapshotError("unreachable")."""
        self._run(self._check, f"use the bucket {self._bucket}")

    def put(self, manifest: Manifest, archive: Path) -> None:
        key = self._key(manifest.workspace_id, archive_name(manifest.snapshot_id))
        self._run(lambda s3: self._put(s3, manifest, archive, key), f"store {self._url(key)}")

    def manifest(self, workspace_id: str, snapshot_id: str) -> Manifest:
        key = self._key(workspace_id, manifest_name(snapshot_id))
        return self._run(
            lambda s3: self._manifest(s3, workspace_id, snapshot_id), f"read {self._url(key)}"
        )

    def fetch(self, manifest: Manifest, into: Path) -> None:
        key = self._key(manifest.workspace_id, archive_name(manifest.snapshot_id))
        doing = f"copy {self._url(key)} to {into}"
        self._run(lambda s3: self._fetch(s3, manifest, key, into), doing)

    def list(self, workspace_id: str) -> list[str]:
        prefix = self._key(workspace_id, "")
        return self._run(
            lambda s3: self._list(s3, workspace_id, prefix), f"list {self._url(prefix)}"
        )

    def delete(self, workspace_id: str, snapshot_id: str) -> None:
        manifest = self._key(workspace_id, manifest_name(snapshot_id))
        archive = self._key(workspace_id, archive_name(snapshot_id))
        self._run(lambda s3: self._delete(s3, manifest, archive), f"delete {self._url(manifest)}")

    async def _check(self, s3: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._look(s3)

    async def _look(self, s3: Any) -> None:
        try:
            found = await s3.head_bucket(Bucket=self._bucket)
        except failures() as error:
            if code_of(error) not in ("301", "400", "403", "404"):
                raise
            # An answer to HEAD has no words. What is wrong is said to whoever asks for a list.
            await s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
            return
        where, here = found.get("BucketRegion", ""), s3.meta.region_name
        if where and where != here:
            raise SnapshotError(
                "unreachable",
                f"the bucket {self._bucket} is in {where}, not in {here}: take one there, or name its"
                f" region (--snapshots s3://{self._bucket}/…?region={where}) and pay for the transfer",
            )

    async def _put(self, s3: Any, manifest: Manifest, archive: Path, key: str) -> None:
        parts = measure(archive, self._part)
        if (parts.size, parts.sha256) != (manifest.archive_bytes, manifest.sha256):
            raise _corrupt(archive, "the packed files are not what the manifest promises")
        committed = self._key(manifest.workspace_id, manifest_name(manifest.snapshot_id))
        ours = (parts.size, parts.checksum)
        if await self._get(s3, committed) == dump(manifest) and await self._stored(s3, key) == ours:
            return  # the answer to an earlier call was lost
        # Stored again under its id: from here to the commit there is none.
        await self._delete(s3, committed, key)
        where = {"Bucket": self._bucket, "Key": key}
        how = {**self._encryption, "Tagging": _tags(manifest.workspace_id, "archive")}
        try:
            if len(parts.hashes) == 1:
                await s3.put_object(
                    **where,
                    **how,
                    Body=archive.read_bytes(),
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=parts.checksum,
                    IfNoneMatch="*",
                )
            else:
                await self._upload(s3, archive, parts, where, how)
        except failures() as error:
            # Done already, by a call whose answer was lost; the next line tells whether it was ours.
            if code_of(error) not in (*_THERE, "NoSuchUpload"):
                raise
        if await self._stored(s3, key) != ours:
            raise _corrupt(
                self._url(key), "S3 has other bytes than were sent; nothing was committed"
            )
        await self._commit(s3, manifest, committed)

    async def _upload(
        self, s3: Any, archive: Path, parts: Parts, where: dict[str, str], how: dict[str, str]
    ) -> None:
        begun = await s3.create_multipart_upload(**where, **how, ChecksumAlgorithm="SHA256")
        upload = {**where, "UploadId": begun["UploadId"]}
        free = asyncio.Semaphore(PARALLEL)

        async def send(index: int) -> dict[str, Any]:
            async with free:
                digest = base64.b64encode(parts.hashes[index]).decode()
                body = await asyncio.to_thread(_slice, archive, index * parts.part, parts.part)
                sent = await s3.upload_part(
                    **upload, PartNumber=index + 1, Body=body, ChecksumSHA256=digest
                )
                return {"PartNumber": index + 1, "ETag": sent["ETag"], "ChecksumSHA256": digest}

        try:
            done = await _together(send(index) for index in range(len(parts.hashes)))
            await s3.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": done}, IfNoneMatch="*"
            )
        except BaseException:
            # What is left of it would be paid for. Should this fail as well, the bucket's rule ends it.
            with contextlib.suppress(*failures()):
                await s3.abort_multipart_upload(**upload)
            raise

    async def _commit(self, s3: Any, manifest: Manifest, key: str) -> None:
        try:
            await s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=dump(manifest),
                ChecksumAlgorithm="SHA256",
                IfNoneMatch="*",
                Tagging=_tags(manifest.workspace_id, "manifest"),
                **self._encryption,
            )
        except failures() as error:
            if code_of(error) not in _THERE:
                raise
            if await self._get(s3, key) != dump(manifest):
                raise _corrupt(
                    self._url(key), "somebody else has just committed another"
                ) from error

    async def _fetch(self, s3: Any, manifest: Manifest, key: str, into: Path) -> None:
        starts = range(0, max(manifest.archive_bytes, 1), self._part)
        with new_file(into) as file:
            out = HashingWriter(file)
            try:
                for at in range(0, len(starts), PARALLEL):
                    some = (self._piece(s3, key, start) for start in starts[at : at + PARALLEL])
                    for size, data in await _together(some):
                        if size != manifest.archive_bytes:
                            raise _corrupt(self._url(key), f"it has {size} bytes")
                        out.write(data)
            except failures() as error:
                if code_of(error) not in (*_MISSING, "InvalidRange"):
                    raise
                await self._manifest(s3, manifest.workspace_id, manifest.snapshot_id)
                raise _corrupt(self._url(key), "it is gone or cut") from None
            if (out.size, out.sha256) != (manifest.archive_bytes, manifest.sha256):
                raise _corrupt(self._url(key), "its bytes have changed")

    async def _piece(self, s3: Any, key: str, start: int) -> tuple[int, bytes]:
        """The whole object's size, and its bytes from `start`."""
        asked = f"bytes={start}-{start + self._part - 1}"
        for tries_left in reversed(range(READS)):
            found = await s3.get_object(Bucket=self._bucket, Key=key, Range=asked)
            total = found.get("ContentRange", "").rpartition("/")[2] or found["ContentLength"]
            try:
                return int(total), await found["Body"].read()
            except failures():
                if not tries_left:
                    raise
        raise AssertionError

    async def _manifest(self, s3: Any, workspace_id: str, snapshot_id: str) -> Manifest:
        data = await self._get(s3, self._key(workspace_id, manifest_name(snapshot_id)))
        if data is None:
            where = self._url(self._key(workspace_id, ""))
            raise SnapshotError("not_found", f"there is no snapshot {snapshot_id} in {where}")
        return load(data, workspace_id, snapshot_id)

    async def _list(self, s3: Any, workspace_id: str, prefix: str) -> Ids:
        ids = []
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        async for page in pages:
            names = [entry["Key"].removeprefix(prefix) for entry in page.get("Contents", [])]
            ids += [name.removesuffix(".json") for name in names if name.endswith(".json")]
        free = asyncio.Semaphore(PARALLEL * 4)

        async def read(snapshot_id: str) -> Manifest | None:
            async with free:
                try:
                    return await self._manifest(s3, workspace_id, snapshot_id)
                except SnapshotError as error:
                    log.warning("not listed: %s", error)
                    return None

        found = await _together(read(snapshot_id) for snapshot_id in ids)
        return [m.snapshot_id for m in sorted((m for m in found if m), key=_age)]

    async def _delete(self, s3: Any, manifest: str, archive: str) -> None:
        await s3.delete_object(Bucket=self._bucket, Key=manifest)
        await s3.delete_object(Bucket=self._bucket, Key=archive)

    async def _get(self, s3: Any, key: str) -> bytes | None:
        """A small object; None when there is none."""
        try:
            return (await self._piece(s3, key, 0))[1]
        except failures() as error:
            if code_of(error) == "InvalidRange":  # it is empty
                return b""
            if code_of(error) not in _MISSING:
                raise
            return None

    async def _stored(self, s3: Any, key: str) -> tuple[int, str]:
        """Bytes of an object and the checksum that S3 keeps of it."""
        try:
            found = await s3.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        except failures() as error:
            if code_of(error) not in _MISSING:
                raise
            return -1, ""
        # "HASH-3" says that it is of three parts.
        return int(found["ContentLength"]), found.get("ChecksumSHA256", "").partition("-")[0]

    def _key(self, workspace_id: str, name: str) -> str:
        return "/".join(filter(None, (self._prefix, check_id(workspace_id)))) + f"/{name}"

    def _url(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def _run(self, work: Callable[[Any], Awaitable[T]], doing: str) -> T:
        async def run() -> T:
            async with client("s3", self._region or None) as s3:
                return await work(s3)

        try:
            return asyncio.run(run())
        except failures() as error:
            # What a disk refuses has a file's name, or no room; the rest is of the network.
            if isinstance(error, OSError) and (error.filename or error.errno in NO_ROOM):
                raise translate(error, f"cannot {doing}") from error
            raise SnapshotError("unreachable", explain(error, doing)) from error


def measure(archive: Path, part: int) -> Parts:
    """Read an archive once. part: bytes wanted; more when there would be too many parts."""
    size = archive.stat().st_size
    part = max(part, -(-size // MOST_PARTS))
    whole, hashes = hashlib.sha256(), []
    with archive.open("rb", buffering=0) as file:
        while data := file.read(part):
            whole.update(data)
            hashes.append(hashlib.sha256(data).digest())
    return Parts(size, part, tuple(hashes), whole.hexdigest())


def _slice(archive: Path, start: int, size: int) -> bytes:
    with archive.open("rb", buffering=0) as file:
        file.seek(start)
        return file.read(size)


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All of it; the first failure ends the rest before it is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _age(manifest: Manifest) -> tuple[int, str]:
    return manifest.created_at_ms, manifest.snapshot_id


def _tags(workspace_id: str, kind: str) -> str:
    """For the bucket's lifecycle rules and for bills."""
    return urlencode({"ide-gateway:workspace": workspace_id, "ide-gateway:kind": kind})


def _corrupt(what: object, why: str) -> SnapshotError:
    return SnapshotError("corrupt", f"{what}: {why}; the other snapshots are untouched")
