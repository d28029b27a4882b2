"""From the `--snapshots` setting to the target it names."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from lifecycle.snapshots import SnapshotError, SnapshotTarget

S3_FORM = "s3://BUCKET[/PREFIX][?kms=KEY&region=REGION]"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_.=/-]{0,500}")


def open_target(url: str) -> SnapshotTarget:
    """A directory's path, file:///path, or S3_FORM. Nothing is touched yet. Raises SnapshotError("unreachable")."""
    scheme, separator, _ = url.partition("://")
    if not url or "\0" in url:
        raise _unsupported(url)
    if not separator:
        return _local(url)
    if scheme.lower() == "file":
        parts = urlsplit(url)
        if parts.netloc in ("", "localhost") and parts.path and not parts.query + parts.fragment:
            return _local(unquote(parts.path))
    if scheme.lower() == "s3":
        return _s3(url)
    raise _unsupported(url)


def s3_parts(url: str) -> tuple[str, str, str, str]:
    """Bucket, prefix, KMS key and region of S3_FORM. Raises ValueError in words."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = parts.path.strip("/")
    if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(f"must be {S3_FORM}; {parts.netloc[:80]!r} is no bucket's name")
    if not _PREFIX.fullmatch(prefix) or {"", ".", ".."} & set(prefix.split("/") if prefix else []):
        raise ValueError(f"must be {S3_FORM}; a prefix is of letters, digits and '_.=-/'")
    if set(query) - {"kms", "region"} or parts.fragment or (parts.query and not query):
        raise ValueError(f"must be {S3_FORM}")
    return parts.netloc, prefix, query.get("kms", ""), query.get("region", "")


def _local(path: str) -> SnapshotTarget:
    from lifecycle.snapshots.local import LocalTarget

    return LocalTarget(Path(path).absolute())


def _s3(url: str) -> SnapshotTarget:
    from lifecycle.snapshots.s3 import S3Target

    try:
        bucket, prefix, kms_key, region = s3_parts(url)
    except ValueError as error:
        raise SnapshotError(
            "unreachable", f"snapshots cannot be kept in {url[:200]!r}: --snapshots {error}"
        ) from None
    return S3Target(bucket, prefix, kms_key=kms_key, region=region)


def _unsupported(url: str) -> SnapshotError:
    return SnapshotError(
        "unreachable",
        f"snapshots cannot be kept in {url[:200]!r}: supported are a directory's path,"
        f" file:///path and {S3_FORM}; set --snapshots to one of these",
    )
