from __future__ import annotations

import pytest

from gateway.settings import GatewaySettings
from shared.settings import SettingsError, load


def test_http_is_off_unless_a_port_is_given() -> None:
    assert load(GatewaySettings, {}).http_port is None
    assert load(GatewaySettings, {"http_port": "0"}).http_port == 0


@pytest.mark.parametrize(
    ("given", "origins"),
    [("", ()), ("*", ("*",)), ("https://a, http://b:1", ("https://a", "http://b:1"))],
)
def test_origins(given: str, origins: tuple[str, ...]) -> None:
    assert load(GatewaySettings, {"http_cors": given}).http_cors == origins


def test_an_origin_is_a_url() -> None:
    with pytest.raises(SettingsError) as caught:
        load(GatewaySettings, {"http_cors": "example.org"})
    assert caught.value.problems == [
        "--http-cors: 'example.org' is not allowed: * or origins like https://example.org, "
        "separated by commas"
    ]
