"""A hub that refuses as the real one does: status, `X-Error-Code`, `X-Error-Message`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

GATED = "someone/gated"
ABSENT = "someone/absent"
COMMIT = "0" * 40


class _Handler(BaseHTTPRequestHandler):
    """What of a gated model anybody may see is its list of files; of an absent one nothing."""

    def do_GET(self) -> None:
        known = self.path.startswith((f"/{GATED}/", f"/api/models/{GATED}"))
        authorized = "Authorization" in self.headers
        if not known:
            if authorized:
                self._refuse(404, "RepoNotFound", "Repository not found")
            else:
                self._refuse(401, "RepoNotFound", "Invalid username or password.")
        elif not self.path.startswith("/api/"):
            said = f"Access to model {GATED} is restricted"
            if authorized:
                self._refuse(403, "GatedRepo", f"{said} and you are not in the authorized list.")
            else:
                self._refuse(401, "GatedRepo", f"{said}. You must be authenticated to access it.")
        else:
            files = [{"rfilename": "config.json", "type": "file", "path": "config.json", "size": 1,
                      "oid": COMMIT}]  # fmt: skip
            tree = "/tree/" in self.path
            model = {"id": GATED, "modelId": GATED, "sha": COMMIT, "gated": "manual",
                     "private": False, "tags": [], "siblings": files}  # fmt: skip
            self._answer(200, json.dumps(files if tree else model).encode())

    do_HEAD = do_GET

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._answer(status, json.dumps({"error": message}).encode(), headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def refusing_hub(home: Path) -> Iterator[dict[str, str]]:
    """Run it; the environment of a process that takes it for the hub, without any token."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
            "HF_TOKEN": "",
        }
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
