from __future__ import annotations

import socket
from pathlib import Path

import pytest

from millstream.stack_options import RestartPolicy, StackError, check_port, default_data_dir


def test_quick_deaths_are_answered_more_slowly_and_then_not_at_all() -> None:
    policy = RestartPolicy(quick=10.0, most=4)
    pauses = [policy.after(1.0) for _ in range(5)]
    assert pauses == pytest.approx([0.1, 0.3, 0.9, 2.7, None])


def test_a_long_life_forgives() -> None:
    policy = RestartPolicy(quick=10.0, most=2)
    assert policy.after(1.0) == pytest.approx(0.1)
    assert policy.after(1.0) == pytest.approx(0.3)
    assert policy.after(60.0) == pytest.approx(0.1)
    assert policy.after(1.0) == pytest.approx(0.3)
    assert policy.after(1.0) is None


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is in use: .* --grpc-port"):
            check_port("127.0.0.1", port, "--grpc-port")
    check_port("127.0.0.1", port, "--grpc-port")
    check_port("127.0.0.1", 0, "--grpc-port")
    with pytest.raises(StackError, match=r"cannot listen on 192\.0\.2\.1"):
        check_port("192.0.2.1", 5, "--grpc-port")


def test_state_lies_where_the_platform_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "millstream"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / ".local" / "state" / "millstream"
