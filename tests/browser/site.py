"""An IDE's pages for the shell's tests: site.py PORT. Every page says where it is and links to the others."""

from __future__ import annotations

import sys

from aiohttp import web

PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<h1>{title}</h1><input id="text"><p id="said"></p>
<a id="next" href="/b/page?y=2#there">next</a> <a id="hash" href="#part">hash</a>
<a id="file" href="/file">file</a> <a id="blank" href="/blank" target="_blank">blank</a>
<a id="top" href="/top" target="_top">top</a> <a id="refused" href="/refused">refused</a>
<a id="picture" href="/icon.svg">picture</a>
<button id="push" onclick="history.pushState(null, '', '/pushed')">push</button>
<button id="copy" onclick="navigator.clipboard.writeText('copied').then(() => said.textContent = 'copied')">copy</button>
<button id="full" onclick="document.documentElement.requestFullscreen().then(() => said.textContent = 'full')">full</button>
<button id="open" onclick="window.open('/opened')">open</button>
<iframe id="view" src="/view" title="view"></iframe>
<script>
  const inner = document.createElement("iframe");
  inner.id = "written";
  document.body.append(inner);
  inner.contentDocument.open();
  inner.contentDocument.write("<input id=field>");
  inner.contentDocument.close();
</script>
"""


async def page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE.format(title=f"At {request.path}"), content_type="text/html")


async def view(request: web.Request) -> web.Response:
    return web.Response(text="<!doctype html><input id=inside>", content_type="text/html")


async def refused(request: web.Request) -> web.Response:
    headers = {"x-frame-options": "DENY"}
    text = "<!doctype html><title>Alone</title><h1>No frame holds me</h1>"
    return web.Response(text=text, content_type="text/html", headers=headers)


async def file(request: web.Request) -> web.Response:
    headers = {"content-disposition": 'attachment; filename="notes.txt"'}
    return web.Response(body=b"all of it", headers=headers)


async def icon(request: web.Request) -> web.Response:
    text = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    return web.Response(text=text, content_type="image/svg+xml")


def main() -> None:
    app = web.Application()
    app.router.add_get("/view", view)
    app.router.add_get("/refused", refused)
    app.router.add_get("/file", file)
    app.router.add_get("/icon.svg", icon)
    app.router.add_get("/{path:.*}", page)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)


main()
