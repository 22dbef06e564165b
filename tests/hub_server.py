"""A Hub on loopback that satisfies the real client, by LFS and by Xet; it can fail on request, and keeps a log."""

import csv
import hashlib
import io
import itertools
import json
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_routes import ROUTES, Request, Response
from hub_store import LARGE_SUFFIXES, Blob, Objects, Refused, Repository, large_blob, small_blob

OWNER_TOKEN, READER_TOKEN = "hf_ownerAbCdEfGhIjKlMnOpQrStUvWx", "hf_readerAbCdEfGhIjKlMnOpQrStUvW"
USERS = {OWNER_TOKEN: ("me", "write"), READER_TOKEN: ("reader", "read")}


@dataclass
class Fault:
    """What happens to requests: a status, or 'drop' (no answer), 'lose' (done, but no answer), 'stall'
    (no end), 'cut' (half of the content)."""

    method: str
    pattern: str
    kind: int | str
    times: int
    after: int = 0


class Hub:
    """The server's state; `start` makes it answer.

    Args:
        folder: Where Xet keeps its files.
    """

    def __init__(self, folder: Path) -> None:
        self.objects = Objects(folder)
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.stalling = threading.Event()
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        # Another origin, as the real Hub's storage is.
        self.storage_url = f"http://localhost:{self.port}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.stalling.set()
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        """Forget repositories, requests and faults; end what stalls."""
        self.stalling.set()
        self.stalling = threading.Event()
        self.repositories, self.requests, self.faults = {}, [], []

    def fail(self, method: str, pattern: str, kind: int | str, times: int = 1, after: int = 0) -> None:
        """Let the next requests that match fail, after some that do not."""
        self.faults.append(Fault(method, pattern, kind, times, after))

    def add(self, name: str, source: Path | Mapping[str, bytes], branch: str = "main", **settings: Any) -> str:
        """Commit a folder, or contents by path, into a repository that is made where there is none; return the oid."""
        repository = self.repositories.setdefault(name, Repository(name, **settings))
        if isinstance(source, Path):
            source = {str(each.relative_to(source)): each.read_bytes() for each in source.rglob("*") if each.is_file()}
        changes: dict[str, Blob | None] = {path: self._blob(path, content) for path, content in source.items()}
        repository.branches.setdefault(branch, repository.branches["main"])
        return repository.commit(branch, "Add files", changes).oid

    def add_task(self, name: str, task: str, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
        """Commit a task of a data set in the style of GLUE, a CSV file for each split, beside those that are there."""
        contents = {}
        for split, rows in splits.items():
            text = io.StringIO()
            writer = csv.DictWriter(text, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            contents[f"{task}/{split}.csv"] = text.getvalue().encode()
        there = self.repositories[name].resolve("main").files if name in self.repositories else {}
        paths = sorted({path for path in (*there, *contents) if path.endswith(".csv")})
        lines = ["configs:"]
        for config, members in itertools.groupby(paths, lambda path: path.split("/")[0]):
            lines += [f"- config_name: {config}", "  data_files:"]
            for path in members:
                lines += [f"  - split: {Path(path).stem}", f"    path: {path}"]
        contents["README.md"] = "\n".join(["---", *lines, "---", ""]).encode()
        return self.add(name, contents, kind="dataset")

    def _blob(self, path: str, content: bytes) -> Blob:
        if not path.endswith(LARGE_SUFFIXES):
            return small_blob(content)
        sha256 = hashlib.sha256(content).hexdigest()
        self.objects.add(sha256, content)
        return large_blob(sha256, len(content))

    def contents(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """All files of a commit."""
        files = self.repositories[name].resolve(revision).files
        return {path: self.read(blob) for path, blob in files.items()}

    def everything(self) -> bytes:
        """All that was ever uploaded."""
        blobs = [b for r in self.repositories.values() for c in r.commits.values() for b in c.files.values()]
        return b"\n".join(self.read(blob) for blob in dict.fromkeys(blobs))

    def read(self, blob: Blob) -> bytes:
        return self.objects.read(blob.oid, blob.size) if blob.content is None else blob.content

    def count(self, method: str, pattern: str) -> int:
        return sum(each.method == method and bool(re.search(pattern, each.path)) for each in list(self.requests))

    def fault_of(self, request: Request) -> int | str | None:
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and fault.method == request.method and re.search(fault.pattern, request.path):
                    if fault.after:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault.kind
        return None

    def answer(self, request: Request) -> Response:
        try:
            with self._lock:
                for method, pattern, handler in ROUTES:
                    found = re.fullmatch(pattern, request.path)
                    if found and request.method in method.split("|"):
                        return handler(self, request, *map(unquote, found.groups()))
            raise Refused(404, f"There is no {request.method} {request.path}.")
        except Refused as refused:
            headers = {"X-Error-Message": str(refused), "X-Error-Code": refused.code}
            return Response(json.dumps({"error": str(refused)}).encode(), refused.status, headers)

    def user(self, request: Request) -> tuple[str, str] | None:
        if request.token is None:
            return None
        if request.token not in USERS:
            raise Refused(401, "Invalid credentials in Authorization header")
        return USERS[request.token]

    def repository(self, request: Request, name: str, *, write: bool = False, content: bool = True) -> Repository:
        """Find a repository that the user may read, or write."""
        user = self.user(request)
        found = self.repositories.get(name)
        owns = user is not None and user[0] == name.split("/")[0]
        if found is None or (found.private and not owns):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        if found.gated and content and not owns:
            raise Refused(403 if user else 401, f"Access to model {name} is restricted.", "GatedRepo")
        if write and not (owns and user and user[1] == "write"):
            raise Refused(403 if user else 401, "You do not have write access to this repository")
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def handle_any(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(size)
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, parse_qs(parts.query), headers, body, headers.get("host", ""))
        fault, stalling = self.hub.fault_of(request), self.hub.stalling
        if fault == "stall":
            stalling.wait(60)
        if fault in ("drop", "stall"):
            self._hang_up()
            return
        does = fault in ("lose", "cut", None)
        response = self.hub.answer(request) if does else Response(b"{}", int(fault or 500))
        if fault == "lose":
            self._hang_up()
            return
        self.send_response(response.status)
        for name, value in {"Content-Length": str(len(response.content)), **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "cut":
            self.wfile.write(response.content[: len(response.content) // 2])
            self._hang_up()
        elif self.command != "HEAD":
            self.wfile.write(response.content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()


def main(folder: Path) -> None:
    """Serve from a process of its own, until its input ends; its address is printed."""
    hub = Hub(folder)
    hub.start()
    print(hub.url, flush=True)
    sys.stdin.read()
    hub.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
