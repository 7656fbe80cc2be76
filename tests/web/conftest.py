"""The packaged tiny CLIP behind the page, loaded once, and a watch over the network."""

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixelclip.web.models import PageModels

TOY_CONFIG = str(Path(__file__).resolve().parents[2] / "configs" / "demo" / "toy.yaml")


@pytest.fixture(scope="session")
def toy_models() -> PageModels:
    return PageModels(TOY_CONFIG, seconds=600.0)


@pytest.fixture(scope="module")
def asked_for() -> Iterator[list[str]]:
    """Addresses beyond this machine that this process, the server, tried to reach."""
    foreign: list[str] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def watch_connect(self, address):
        if isinstance(address, tuple) and not ipaddress.ip_address(address[0]).is_loopback:
            foreign.append(str(address))
            raise OSError("no network in this test")
        return connect(self, address)

    def watch_look_up(host, *arguments, **options):
        if host not in (None, "localhost", "127.0.0.1", "::1"):
            foreign.append(str(host))
            raise OSError("no network in this test")
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watch_connect)
        patch.setattr(socket, "getaddrinfo", watch_look_up)
        yield foreign
