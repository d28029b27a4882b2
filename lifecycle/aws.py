"""Clients of AWS for every technology that needs them, and its errors in words.

AWS_ENDPOINT_URL points them all elsewhere (moto's server in tests and trials), as for any SDK of AWS.
boto is imported with the first client: it takes a third of a second that other pools need not pay.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Any

ATTEMPTS = 10
"""Calls at most for one answer: throttling and lost answers are asked again after a jittered pause."""

_HINTS = {
    "InvalidClientTokenId": "the credentials are wrong: check AWS_ACCESS_KEY_ID or the instance's role",
    "UnrecognizedClientException": "the credentials are wrong: check AWS_ACCESS_KEY_ID or the instance's role",
    "InvalidAccessKeyId": "the credentials are wrong: check AWS_ACCESS_KEY_ID or the instance's role",
    "AuthFailure": "the credentials are wrong, or not for this region: check them and --aws-region",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the credentials have expired: renew them",
    "ExpiredTokenException": "the credentials have expired: renew them",
    "PermanentRedirect": "it is in another region: set --aws-region to the bucket's",
    "AuthorizationHeaderMalformed": "it is in another region: set --aws-region to the bucket's",
    "NoSuchBucket": "there is no such bucket: create it, or correct --snapshots",
    "ResourceNotFoundException": "there is none of that name in this account and region: create it, or correct the name or --aws-region",
}  # fmt: skip

_FORBIDDEN = {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "AuthorizationError",
}
_THROTTLED = {
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
}
QUOTED = 300
"""Characters of AWS's own words in ours: who may not do what stands at their beginning."""


class Clients:
    """One client per service, made when first asked for. `await close()` at the end."""

    def __init__(self, region: str = "") -> None:
        """region: "" takes the one of the environment (AWS_REGION, AWS_DEFAULT_REGION, profile)."""
        self._region = region or None
        self._stack = AsyncExitStack()
        self._clients: dict[str, Any] = {}
        self._making = asyncio.Lock()

    async def get(self, service: str) -> Any:
        """The client of "ec2", "s3", … Raises botocore's NoRegionError and the like."""
        async with self._making:
            if service not in self._clients:
                self._clients[service] = await self._stack.enter_async_context(
                    client(service, self._region)
                )
            return self._clients[service]

    async def close(self) -> None:
        self._clients.clear()
        await self._stack.aclose()


def client(service: str, region: str | None = None) -> Any:
    """A context manager that gives an aioboto3 client with our time-outs and retries."""
    import aioboto3
    from botocore.config import Config

    settings = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=50,
    )
    # botocore itself does not read AWS_REGION, which every AWS runtime and every other SDK knows.
    named = region or os.environ.get("AWS_REGION") or None
    return aioboto3.Session().client(service, region_name=named, config=settings)


def code_of(error: BaseException) -> str:
    """AWS's own name for what went wrong ("InsufficientInstanceCapacity"), "" for anything else."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def is_throttled(error: BaseException) -> bool:
    """Whether AWS was asked too often, however patiently the answer was waited for."""
    return code_of(error) in _THROTTLED


def failures() -> tuple[type[BaseException], ...]:
    """What a call may raise: refusals, lost connections, missing credentials."""
    from aiohttp import ClientPayloadError  # a body that breaks off: botocore has no word for it
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError, ClientPayloadError, OSError, TimeoutError)


def explain(error: BaseException, doing: str) -> str:
    """One sentence for an operator. doing: what was asked, of what: "list the instances of fleet x"."""
    code = code_of(error)
    name = type(error).__name__
    if name in ("NoCredentialsError", "PartialCredentialsError"):
        return f"cannot {doing}: there are no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run with a role"
    if name == "NoRegionError":
        return f"cannot {doing}: no AWS region is set; set --aws-region or AWS_REGION"
    if name in ("EndpointConnectionError", "ConnectTimeoutError"):
        return f"cannot {doing}: AWS does not answer ({error}); check --aws-region, AWS_ENDPOINT_URL and the network"
    if isinstance(error, TimeoutError):
        return f"cannot {doing}: AWS gave no answer in time; check --aws-region, AWS_ENDPOINT_URL and the network"
    if code in _FORBIDDEN:
        said = str(getattr(error, "response", {}).get("Error", {}).get("Message", ""))[:QUOTED]
        return (
            f"cannot {doing}: the role may not do this, compare it with deploy/iam ({code}: {said})"
        )
    hint = _HINTS.get(code, "")
    return f"cannot {doing}: {hint} ({code})" if hint else f"cannot {doing}: {error}"
