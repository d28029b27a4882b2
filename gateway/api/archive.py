"""A workspace's files for its person to take away: the newest snapshot, as an archive that any computer opens."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from starlette.responses import Response, StreamingResponse

from gateway.api.errors import NotFound
from gateway.api.operation import NEVER_CACHED, Call
from gateway.api.workspaces import owned


async def download(call: Call) -> Response:
    workspace = await owned(call)
    if not workspace.snapshot_id:
        message = "it has no snapshot yet; POST …/snapshot writes one, and so does putting it away"
        raise NotFound(message)
    archive = await call.parts.download(workspace)
    made = datetime.fromtimestamp(archive.created_at_ms / 1000, UTC)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", workspace.name).strip("-.") or workspace.id
    headers = {
        **NEVER_CACHED,
        "Content-Disposition": f'attachment; filename="{name}-{made:%Y-%m-%d-%H%M}.tar.gz"',
        "Last-Modified": made.strftime("%a, %d %b %Y %H:%M:%S GMT"),
    }
    if call.request.method == "HEAD":
        await archive.pieces.aclose()
        return Response(media_type="application/gzip", headers=headers)
    return StreamingResponse(archive.pieces, media_type="application/gzip", headers=headers)
