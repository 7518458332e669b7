"""The demo that stays up says how to go on, and what it says works."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import urllib.request
from pathlib import Path

from tests.e2e.running import MILLSTREAM, ROOT


def test_the_demo_serves_http_and_says_where(tmp_path: Path) -> None:
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [*MILLSTREAM, "demo", "--engine", "sim", "--grpc-port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    limit = threading.Timer(60, process.kill)
    limit.start()
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "-d '" in line:
                break
        url = re.search(r"curl -N (\S+)", said)
        body = re.search(r"-d '(.*)'", said)
        assert url, said
        assert body, said
        asked = urllib.request.Request(url[1], json.dumps(json.loads(body[1])).encode())
        asked.add_header("content-type", "application/json")
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert answer.read().rstrip().endswith(b"data: [DONE]")
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(20) == 0
    finally:
        limit.cancel()
        process.kill()
        process.stdout.close()
        process.wait()
