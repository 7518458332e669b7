"""A browser's own EventSource, WebSocket and fetch, in headless Chromium."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.clients.running import PROGRAMS, Clients, missing

PAGE = (PROGRAMS / "browser.html").read_bytes()


@contextmanager
def page() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """Serve the page, at an origin that is not the gateway's, and take what it found out."""
    found: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200 if self.path.startswith("/?") else 404, PAGE)

        def do_POST(self) -> None:
            found.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._answer(200, b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_browser(clients: Clients, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("no chromium: install it, or run CHROMIUM=install tests/clients/setup.sh chromium")
        return
    with page() as (origin, found):
        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += ["--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={tmp_path}"]
        browser = subprocess.Popen(
            [*command, f"{origin}/?base={clients.base}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            results = found.get(timeout=60)
        finally:
            browser.terminate()
            browser.wait(10)
    assert "failed" not in results, results
    whole = " 0 1 2 3 4"
    assert results["events"] == {"text": whole, "lastId": "4", "opened": 1, "reason": "length"}
    assert results["socket"] == {"text": whole, "code": "cancelled"}
    assert results["refused"]["status"] == 404
    assert results["refused"]["code"] == "model_not_found"
    assert results["refused"]["id"]
