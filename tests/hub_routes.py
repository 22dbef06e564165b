"""What the test Hub answers, by method and path."""

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qs

from hub_store import LARGE_SUFFIXES, Blob, Objects, Refused, Repository, large_blob, small_blob

DATE = "2026-11-01T00:00:00.000Z"


@dataclass(frozen=True)
class Request:
    """What the client has asked."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    host: str

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass(frozen=True)
class Response:
    content: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Hub(Protocol):
    """The part of the server's state that answers depend on."""

    objects: Objects
    repositories: dict[str, Repository]
    url: str
    storage_url: str

    def user(self, request: Request) -> tuple[str, str] | None: ...

    def repository(self, request: Request, name: str, *, write: bool = False, content: bool = True) -> Repository: ...

    def read(self, blob: Blob) -> bytes: ...


def _json(value: Any, status: int = 200, **headers: str) -> Response:
    return Response(json.dumps(value).encode(), status, {"Content-Type": "application/json", **headers})


def _whoami(hub: Hub, request: Request) -> Response:
    user = hub.user(request)
    if user is None:
        raise Refused(401, "Invalid username or password.")
    return _json({"name": user[0], "type": "user", "orgs": [], "auth": {"accessToken": {"role": user[1]}}})


def _create(hub: Hub, request: Request) -> Response:
    user, asked = hub.user(request), request.json()
    name = f"{asked.get('organization') or (user or ('',))[0]}/{asked['name']}"
    if user is None:
        raise Refused(401, "Invalid username or password.")
    if user[1] != "write" or name.split("/")[0] != user[0]:
        raise Refused(403, f'You don\'t have the rights to create a model under the namespace "{name}"')
    url = {"url": f"{hub.url}/{name}"}
    if name in hub.repositories:
        return _json({**url, "error": "You already created this model repo"}, 409)
    hub.repositories[name] = Repository(
        name, private=asked.get("visibility") == "private", kind=asked.get("type", "model")
    )
    return _json(url)


def _delete(hub: Hub, request: Request) -> Response:
    asked = request.json()
    hub.repository(request, f"{asked.get('organization') or 'me'}/{asked['name']}", write=True)
    del hub.repositories[f"{asked.get('organization') or 'me'}/{asked['name']}"]
    return _json({})


def _info(hub: Hub, request: Request, name: str, revision: str = "main") -> Response:
    repository = hub.repository(request, name, content=False)
    commit = repository.resolve(revision)
    files = [{"rfilename": path} for path in commit.files]
    card: dict[str, Any] = {"tags": [], "lastModified": DATE, "createdAt": DATE, "cardData": {}, "downloads": 0}
    return _json(
        {"id": name, "sha": commit.oid, "private": repository.private, "siblings": files, "gated": False} | card
    )


def _entry(hub: Hub, path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": blob.size, "oid": blob.git_oid}
    if blob.sha256:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 130}
        if blob.sha256 in (hashes := hub.objects.xet_hashes()):
            entry["xetHash"] = hashes[blob.sha256]
    return entry


def _tree(hub: Hub, request: Request, name: str, revision: str, folder: str = "") -> Response:
    files = hub.repository(request, name).resolve(revision).files
    prefix = f"{folder}/" if folder else ""
    inside = {path: blob for path, blob in files.items() if path.startswith(prefix)}
    if folder and not inside:
        raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    recursive = request.query.get("recursive", ["false"])[0].lower() == "true"
    entries = [_entry(hub, path, b) for path, b in inside.items() if recursive or "/" not in path[len(prefix) :]]
    folders = {prefix + path[len(prefix) :].split("/")[0] for path in inside if "/" in path[len(prefix) :]}
    return _json(
        entries + [{"type": "directory", "path": each, "size": 0, "oid": "0" * 40} for each in sorted(folders)]
    )


def _paths_info(hub: Hub, request: Request, name: str, revision: str) -> Response:
    files = hub.repository(request, name).resolve(revision).files
    is_json = "json" in request.headers.get("content-type", "")
    paths = request.json()["paths"] if is_json else parse_qs(request.body.decode())["paths"]
    return _json([_entry(hub, path, files[path]) for path in paths if path in files])


def _refs(hub: Hub, request: Request, name: str) -> Response:
    repository = hub.repository(request, name)

    def refs(names: dict[str, str], kind: str) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid} for n, oid in names.items()]

    return _json(
        {"branches": refs(repository.branches, "heads"), "tags": refs(repository.tags, "tags"), "converts": []}
    )


def _commits(hub: Hub, request: Request, name: str, revision: str) -> Response:
    commits = hub.repository(request, name).history(revision)
    return _json([{"id": c.oid, "title": c.title, "message": "", "date": DATE, "authors": []} for c in commits])


def _branch(hub: Hub, request: Request, name: str, branch: str) -> Response:
    repository = hub.repository(request, name, write=True)
    if branch in repository.branches:
        raise Refused(409, f"Reference already exists: {branch}")
    start = request.json().get("startingPoint", "main") if request.body else "main"
    repository.branches[branch] = repository.resolve(start).oid
    return _json({})


def _tag(hub: Hub, request: Request, name: str, revision: str) -> Response:
    repository = hub.repository(request, name, write=True)
    tag = request.json()["tag"]
    if tag in repository.tags:
        raise Refused(409, f"Reference already exists: {tag}")
    repository.tags[tag] = repository.resolve(revision).oid
    return _json({})


def _auth_check(hub: Hub, request: Request, name: str, write: str = "") -> Response:
    hub.repository(request, name, write=bool(write))
    return _json({})


def _settings(hub: Hub, request: Request, name: str) -> Response:
    hub.repository(request, name, write=True).private = request.json().get("visibility") == "private"
    return _json({})


def _preupload(hub: Hub, request: Request, name: str, revision: str) -> Response:
    files = hub.repository(request, name, write=True).resolve(revision).files
    answers = []
    for asked in request.json()["files"]:
        mode = "lfs" if asked["path"].endswith(LARGE_SUFFIXES) else "regular"
        oid = files[asked["path"]].oid if asked["path"] in files else None
        answers.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return _json({"files": answers})


def _xet_token(hub: Hub, request: Request, name: str, kind: str, revision: str) -> Response:
    hub.repository(request, name, write=kind == "write")
    end = int(time.time()) + 3600
    headers = {"X-Xet-Cas-Url": hub.objects.xet_url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(end)}
    return _json({"casUrl": hub.objects.xet_url, "accessToken": "xet", "exp": end}, **headers)


def _lfs_batch(hub: Hub, request: Request, name: str) -> Response:
    hub.repository(request, name, write=True)
    objects = []
    for asked in request.json()["objects"]:
        upload = {"href": f"{hub.storage_url}/storage/{asked['oid']}", "header": {}}
        verify = {"href": f"{hub.url}/storage/{asked['oid']}/verify", "header": {}}
        there = asked["oid"] in hub.objects
        objects.append({**asked} if there else {**asked, "actions": {"upload": upload, "verify": verify}})
    return _json({"transfer": "basic", "objects": objects})


def _put(hub: Hub, request: Request, sha256: str) -> Response:
    hub.objects.add(sha256, request.body)
    return Response()


def _verify(hub: Hub, request: Request, sha256: str) -> Response:
    if sha256 not in hub.objects:
        raise Refused(404, f"There is no object {sha256}.")
    return _json({})


def _commit(hub: Hub, request: Request, name: str, branch: str) -> Response:
    repository = hub.repository(request, name, write=True)
    header: dict[str, Any] = {}
    changes: dict[str, Blob | None] = {}
    for line in request.body.splitlines():
        entry = json.loads(line)
        key, value = entry["key"], entry["value"]
        if key == "header":
            header = value
        elif key == "file":
            changes[value["path"]] = small_blob(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in hub.objects:
                raise Refused(400, f"There is no object {value['oid']} for {value['path']}.")
            changes[value["path"]] = large_blob(value["oid"], value["size"])
        elif key == "deletedFile":
            changes[value["path"]] = None
        else:
            raise Refused(400, f"There is no {key}.")
    new = repository.commit(branch, header["summary"], changes, header.get("parentCommit"))
    return _json({"commitOid": new.oid, "commitUrl": f"{hub.url}/{name}/commit/{new.oid}", "success": True})


def _resolve(hub: Hub, request: Request, name: str, revision: str, path: str) -> Response:
    commit = hub.repository(request, name).resolve(revision)
    headers = {"X-Repo-Commit": commit.oid}
    blob = commit.files.get(path)
    if blob is None:
        error = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        return Response(b"", 404, headers | error)
    headers["ETag"] = f'"{blob.oid}"'
    if blob.sha256 is None:
        return _ranged(request, hub.read(blob), headers)
    headers |= {"X-Linked-Size": str(blob.size), "X-Linked-Etag": f'"{blob.sha256}"'}
    headers["Location"] = f"{hub.storage_url}/storage/{blob.sha256}"
    if blob.sha256 in (hashes := hub.objects.xet_hashes()):
        headers["X-Xet-Hash"] = hashes[blob.sha256]
        headers["Link"] = f'<{hub.url}/api/models/{name}/xet-read-token/{commit.oid}>; rel="xet-auth"'
    return Response(b"", 302, headers)


def _storage(hub: Hub, request: Request, sha256: str) -> Response:
    blobs = [b for r in hub.repositories.values() for c in r.commits.values() for b in c.files.values()]
    return _ranged(request, hub.read(next(blob for blob in blobs if blob.sha256 == sha256)), {})


def _ranged(request: Request, content: bytes, headers: Mapping[str, str]) -> Response:
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if not found:
        return Response(content, 200, headers)
    first, last = int(found[1]), int(found[2] or len(content) - 1)
    return Response(
        content[first : last + 1], 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
    )


def _validate_yaml(hub: Hub, request: Request) -> Response:
    return _json({"errors": [], "warnings": []})


_REPO = r"/api/(?:model|dataset)s/([^/]+/[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", r"/api/whoami-v2", _whoami),
    ("POST", r"/api/repos/create", _create),
    ("DELETE", r"/api/repos/delete", _delete),
    ("POST", r"/api/validate-yaml", _validate_yaml),
    ("GET", rf"{_REPO}/tree/([^/]+)/(.+)", _tree),
    ("GET", rf"{_REPO}/tree/([^/]+)", _tree),
    ("POST", rf"{_REPO}/paths-info/([^/]+)", _paths_info),
    ("GET", rf"{_REPO}/refs", _refs),
    ("GET", rf"{_REPO}/commits/([^/]+)", _commits),
    ("POST", rf"{_REPO}/branch/([^/]+)", _branch),
    ("POST", rf"{_REPO}/tag/([^/]+)", _tag),
    ("GET", rf"{_REPO}/auth-check", _auth_check),
    ("GET", rf"{_REPO}/auth-check/(write)", _auth_check),
    ("PUT", rf"{_REPO}/settings", _settings),
    ("POST", rf"{_REPO}/preupload/([^/]+)", _preupload),
    ("GET", rf"{_REPO}/xet-(read|write)-token/([^/]+)", _xet_token),
    ("POST", rf"{_REPO}/commit/([^/]+)", _commit),
    ("GET", rf"{_REPO}/revision/([^/]+)", _info),
    ("GET", _REPO, _info),
    ("POST", r"/(?:datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", _lfs_batch),
    ("PUT", r"/storage/([0-9a-f]{64})", _put),
    ("POST", r"/storage/([0-9a-f]{64})/verify", _verify),
    ("GET|HEAD", r"/storage/([0-9a-f]{64})", _storage),
    ("GET|HEAD", r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
]
