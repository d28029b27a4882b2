"""Which call of AWS's API an HTTP request is. Pure.

`service` is the name of boto's client ("elbv2", not "elasticloadbalancing"); `action` the API's name.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

CLIENTS = {"elasticloadbalancing": "elbv2", "monitoring": "cloudwatch"}
"""Where the name in the signature is not the client's."""

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/]*)/([^/]*)/aws4_request")
_REST = {"eks", "lambda", "scheduler", "batch"}


@dataclass
class Call:
    """status: moto's own, 0 as long as there is none. at: monotonic seconds. body: "" when it is large.
    at_most: instances that RunInstances gives, less than asked for: for a fault's `before` to set."""

    service: str
    action: str
    role: str
    at: float
    method: str = "POST"
    path: str = "/"
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    region: str = ""
    status: int = 0
    answered: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers of moto's answer."""
    at_most: int = 0

    @cached_property
    def params(self) -> dict[str, Any]:
        """What was asked: the form of a query call ("Filter.1.Name": …), or the document of a JSON one."""
        if self.body[:1] == b"{":
            return dict(json.loads(self.body))
        form = dict(parse_qsl(self.query, keep_blank_values=True))
        if "urlencoded" in self.headers.get("content-type", ""):
            form |= dict(parse_qsl(self.body.decode(), keep_blank_values=True))
        return form


LARGE = 64 * 1024
"""Bytes of an object's body that are not kept with its call."""


def read_call(
    method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, at: float
) -> Call:
    """headers: names in lower case. path: as it was sent."""
    signed = _CREDENTIAL.search(headers.get("authorization", ""))
    role, region, service = signed.groups() if signed else ("", "", "")
    service = CLIENTS.get(service, service)
    plain = body
    if service != "s3" and headers.get("content-encoding") == "gzip":
        plain = gzip.decompress(body)
    kept = plain if service != "s3" or len(plain) <= LARGE else b""
    call = Call(service, "", role, at, method, path, query, headers, kept, region)
    call.action = _action(call)
    return call


def _action(call: Call) -> str:
    target = call.headers.get("x-amz-target", "")
    if target:
        return target.rpartition(".")[2]
    if call.service == "s3":
        bucket, key = _bucket_and_key(call.headers.get("host", ""), call.path)
        return s3_action(call.method, bucket, key, call.query, call.headers)
    if call.service in _REST:
        return _rest_action(call.service, call.method, call.path)
    return str(call.params.get("Action", "")) or f"{call.method} {call.path}"


def _bucket_and_key(host: str, path: str) -> tuple[str, str]:
    name = host.partition(":")[0]
    bucket, _, key = path.lstrip("/").partition("/")
    if name and name != "localhost" and not re.fullmatch(r"[\d.]+", name):  # virtual-host style
        return name.partition(".")[0], path.lstrip("/")
    return bucket, key


_OBJECT = {
    "GET": [
        ("uploadId", "ListParts"),
        ("tagging", "GetObjectTagging"),
        ("attributes", "GetObjectAttributes"),
        ("", "GetObject"),
    ],
    "HEAD": [("", "HeadObject")],
    "PUT": [
        ("partNumber", "UploadPart"),
        ("tagging", "PutObjectTagging"),
        ("", "PutObject"),
    ],
    "POST": [
        ("uploads", "CreateMultipartUpload"),
        ("uploadId", "CompleteMultipartUpload"),
        ("restore", "RestoreObject"),
    ],
    "DELETE": [
        ("uploadId", "AbortMultipartUpload"),
        ("tagging", "DeleteObjectTagging"),
        ("", "DeleteObject"),
    ],
}  # fmt: skip
_BUCKET = {
    "GET": [
        ("uploads", "ListMultipartUploads"),
        ("location", "GetBucketLocation"),
        ("versions", "ListObjectVersions"),
        ("versioning", "GetBucketVersioning"),
        ("encryption", "GetBucketEncryption"),
        ("lifecycle", "GetBucketLifecycleConfiguration"),
        ("list-type", "ListObjectsV2"),
        ("", "ListObjects"),
    ],
    "HEAD": [("", "HeadBucket")],
    "PUT": [
        ("lifecycle", "PutBucketLifecycleConfiguration"),
        ("encryption", "PutBucketEncryption"),
        ("", "CreateBucket"),
    ],
    "POST": [("delete", "DeleteObjects")],
    "DELETE": [("", "DeleteBucket")],
}  # fmt: skip


def s3_action(method: str, bucket: str, key: str, query: str, headers: Mapping[str, str]) -> str:
    """What a request for an object or a bucket is: by its method and the word in its query."""
    asked = dict(parse_qsl(query, keep_blank_values=True))
    for word, action in (_OBJECT if key else _BUCKET).get(method, []) if bucket else []:
        if not word or word in asked:
            copies = "x-amz-copy-source" in headers
            return {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}.get(action, action) if copies else action  # fmt: skip
    return "ListBuckets" if not bucket and method == "GET" else f"{method} {bucket}/{key}?{query}"


def _rest_action(service: str, method: str, path: str) -> str:
    for verb, pattern, action in _routes(service):
        if verb == method and pattern.fullmatch(unquote(path)):
            return action
    return f"{method} {path}"


@cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    """From botocore's own description of the service; fixed words before parameters."""
    from botocore.loaders import Loader

    found = []
    for action, operation in (
        Loader().load_service_model(service, "service-2")["operations"].items()
    ):
        uri = operation["http"]["requestUri"].partition("?")[0]
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.sub(r"\\\{\w+\\\+\\\}", ".+", re.escape(uri)))
        found.append((operation["http"]["method"], re.compile(pattern + "/?"), action))
    return sorted(found, key=lambda route: route[1].pattern.count("[^/]+"))
