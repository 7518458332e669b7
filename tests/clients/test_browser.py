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

import pytest

from tests.clients.running import PROGRAMS, Clients, missing


@contextmanager
def page(name: str) -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """Serve the page, at an origin that is not the gateway's, and take what it found out."""
    found: queue.Queue[dict[str, Any]] = queue.Queue()
    content = (PROGRAMS / name).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200 if self.path.startswith("/?") else 404, content)

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


def browse(clients: Clients, directory: Path, name: str) -> dict[str, Any]:
    """Open a page; gives what it found out."""
    chromium = shutil.which("chromium")
    if chromium is None:
        missing("no chromium: install it, or run CHROMIUM=install tests/clients/setup.sh chromium")
        return {}
    with page(name) as (origin, found):
        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += ["--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={directory}"]
        command += ["--autoplay-policy=no-user-gesture-required"]
        browser = subprocess.Popen(
            [*command, f"{origin}/?base={clients.base}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            results = found.get(timeout=120)
        finally:
            browser.terminate()
            browser.wait(60)
    assert "failed" not in results, results
    return results


def test_functions_in_a_browser(clients: Clients, tmp_path: Path) -> None:
    results = browse(clients, tmp_path, "functions.html")
    assert results["events"] == {"items": ["0", "1", "2"], "lastId": "end", "opened": 1}
    assert results["back"] == {"items": ["0", "1", "2"], "failed": True}
    assert results["frames"] == [8, 8]
    assert results["live"] == [8, 8]
    assert results["picture"] == [8, 8]
    assert results["sound"] == pytest.approx(0.5, abs=0.05)


def test_a_browser(clients: Clients, tmp_path: Path) -> None:
    results = browse(clients, tmp_path, "browser.html")
    whole = " 0 1 2 3 4"
    assert results["events"] == {"text": whole, "lastId": "4", "opened": 1, "reason": "length"}
    assert results["socket"] == {"text": whole, "code": "cancelled"}
    assert results["refused"]["status"] == 404
    assert results["refused"]["code"] == "model_not_found"
    assert results["refused"]["id"]
