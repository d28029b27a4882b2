"""Refusals in the shapes that AWS's protocols give them. Pure."""

from __future__ import annotations

import json
from xml.sax.saxutils import escape

_JSON = {"ecs", "dynamodb", "sqs", "events", "logs", "ssm", "eks", "lambda", "scheduler"}


def refusal(service: str, code: str, message: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of an error's reply."""
    if service in _JSON:
        headers = {"content-type": "application/x-amz-json-1.0", "x-amzn-errortype": code}
        return headers, json.dumps({"__type": code, "message": message}).encode()
    headers = {"content-type": "text/xml"}
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if service == "ec2":
        body = (
            f"<Response><Errors><Error>{error}</Error></Errors><RequestID>r</RequestID></Response>"
        )
    elif service == "s3":
        # Without it boto asks where the bucket is, is redirected, asks where the bucket is, …
        if code == "PermanentRedirect":
            headers["x-amz-bucket-region"] = "us-west-2"
        body = f"<Error>{error}<RequestId>r</RequestId></Error>"
    else:
        body = f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>r</RequestId></ErrorResponse>"
    return headers, f'<?xml version="1.0" encoding="UTF-8"?>{body}'.encode()


_WRONG_KEY = {
    "ec2": ("AuthFailure", 401),
    "s3": ("InvalidAccessKeyId", 403),
    "dynamodb": ("UnrecognizedClientException", 400),
    "ecs": ("UnrecognizedClientException", 400),
    "sqs": ("InvalidClientTokenId", 403),
    "eks": ("UnrecognizedClientException", 403),
    "lambda": ("UnrecognizedClientException", 403),
    "events": ("UnrecognizedClientException", 400),
}


def wrong_key(service: str) -> tuple[str, int]:
    """What the service calls credentials that nobody has."""
    return _WRONG_KEY.get(service, ("InvalidClientTokenId", 403))
