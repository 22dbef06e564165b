"""No test of the Hub reaches any other place than this machine: what tries to is stopped, and seen.

Three guards, each of which sees what the others do not:

- sockets of Python in this process may connect to loopback addresses only;
- every client that heeds proxies (httpx, requests, curl, git, and the Xet client, which is written in Rust), in this
  process and in those that it starts, is sent to a wall on loopback that notes what was asked for and refuses it;
- `test_hub_guard` runs a round trip in a network without any other interface than loopback, where the kernel allows.

A client that heeds no proxies and opens no socket by Python in this process is seen by the last one alone.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import huggingface_hub
import pytest

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Wall:
    """A proxy that lets nothing through; `asked` are the first lines of what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def environment(self) -> dict[str, str]:
        """What sends clients here, but for those that want a loopback address."""
        ours = {**dict.fromkeys(_PROXIES, self.url), "NO_PROXY": ",".join(LOOPBACK)}
        return ours | {name.lower(): value for name, value in ours.items()}

    @contextmanager
    def around(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Stop and note connections to other places.

        Raises:
            AssertionError: At the end, if there were any.
        """
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)
        connect = socket.socket.connect

        def connect_to_loopback(self: socket.socket, address: tuple[str, int]) -> None:
            if self.family != socket.AF_UNIX and address[0] not in LOOPBACK:
                raise AssertionError(f"A test has tried to connect to {address}.")
            connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", connect_to_loopback)
        # The client reads proxies when it is made.
        huggingface_hub.close_session()
        self.asked.clear()
        yield
        huggingface_hub.close_session()
        # `datasets` makes names of services out of the endpoint's, which lead nowhere here.
        asked, self.asked = [each for each in self.asked if ".127.0.0.1" not in each], []
        assert not asked, f"A test has asked for other places: {asked}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    first = connection.recv(4096).split(b"\r\n")[0].decode(errors="replace")
                    self.asked.append(first)
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                except OSError:
                    self.asked.append("a connection that said nothing")


def in_a_network_of_its_own(command: list[str]) -> list[str]:
    """The command, run where loopback is the only network; needs the right to make one."""
    return [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "sh",
        "-c",
        'ip link set lo up && exec "$@"',
        "sh",
        *command,
    ]


def environment_without_proxies() -> dict[str, str]:
    names = {*_PROXIES, "NO_PROXY"}
    return {name: value for name, value in os.environ.items() if name.upper() not in names}
