"""The hub is asked once and quickly, and its libraries are kept from trying again and again."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import datasets.config
import pytest
from huggingface_hub import constants

from lightning_prompts.files import hub


@pytest.fixture(autouse=True)
def _plain_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    hub._connects.cache_clear()
    yield
    hub._connects.cache_clear()


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        yield


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.mark.usefixtures("listening")
def test_endpoint_that_listens_is_reachable() -> None:
    assert hub.hub_reachable()
    with hub.offline_unless_reachable() as reachable:
        assert reachable
        assert not constants.HF_HUB_OFFLINE


@pytest.mark.usefixtures("listening")
def test_offline_setting_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.hub_reachable()


@pytest.mark.usefixtures("closed")
def test_closed_endpoint_puts_the_libraries_offline_for_a_while() -> None:
    with hub.offline_unless_reachable() as reachable:
        assert not reachable
        assert constants.is_offline_mode()
        assert datasets.config.HF_HUB_OFFLINE
    assert not constants.is_offline_mode()
    assert not datasets.config.HF_HUB_OFFLINE


@pytest.mark.usefixtures("closed")
def test_proxy_is_trusted_without_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "getproxies", lambda: {"no": "localhost"})
    assert not hub.hub_reachable()
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy:3128"})
    assert hub.hub_reachable()


def test_slow_name_server_does_not_hold_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    calls = []

    def slow(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        answered.wait(10)
        raise OSError("no answer")

    monkeypatch.setattr(hub.socket, "create_connection", slow)
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.1)
    started = time.monotonic()
    assert not hub.hub_reachable()
    assert not hub.hub_reachable()
    assert time.monotonic() - started < 1
    assert len(calls) == 1  # asked once
    answered.set()
