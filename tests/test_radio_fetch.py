"""Fetching the published set, against a small server on 127.0.0.1: what arrives, goes on, and is refused."""

import hashlib
import io
import re
import socket
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from fasthash.cli import main
from fasthash.errors import ArgumentError, FastHashError, ReadError
from fasthash.io import png_bytes
from fasthash.radio import fetch as fetching
from fasthash.radio.dataset import read_dataset
from fasthash.radio.fetch import Published, content_digest, count_images, fetch

RNG = np.random.default_rng(0)
FILES = {
    f"data/{folder}/{i}.png": png_bytes(RNG.integers(0, 256, (60, 60), np.uint8))
    for folder in ("train/FRI", "train/FRII", "valid/Bent", "test/FR1")
    for i in range(3)
}


def packed(files=FILES, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


ZIP = packed()


class Server(ThreadingHTTPServer):
    """Serves ``body``; ``cut``: bytes after which the next answers break; ``status``: what the next answers say."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.ranges, self.tell = ZIP, True, True
        self.cut, self.status, self.asked = [], [], []
        self.url = f"http://127.0.0.1:{self.server_port}/data.zip"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        status = server.status.pop(0) if server.status else 206 if start else 200
        if start and start >= len(server.body):
            status = 416
        body = server.body[start:] if status < 300 else b""
        self.send_response(status)
        if server.tell:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut.pop(0)] if server.cut and body else body)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetching, "_WAITS", (0.0, 0.0))
    with Server() as made:
        threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setitem(fetching.SETS, "data", Published(made.url, digest_of(FILES)))
        yield made
        made.shutdown()


def digest_of(files):
    """As the docstring of content_digest says, in three lines."""
    kept = {name.removeprefix("data/"): data for name, data in files.items() if "/test/" not in name}
    lines = sorted(f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in kept.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_arrives_and_can_be_read(server, tmp_path, capsys):
    assert main(["fetch", "radio", str(tmp_path / "sets")]) == 0
    path = tmp_path / "sets" / "data.zip"
    assert capsys.readouterr() == (f"{path}: 6 train, 3 valid, 3 test images\n", "")
    assert path.read_bytes() == ZIP
    assert names(path.parent) == ["data.zip"]
    assert len(read_dataset(path, "train")) == 6
    assert main(["fetch", "radio", str(tmp_path / "sets")]) == 0  # a second time nothing is asked for
    assert capsys.readouterr().err == f"{path} was there already\n"
    assert server.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_line_is_taken_up_again(server, tmp_path, ranges):
    server.ranges, server.cut = ranges, [1000, 2000]
    fetched = fetch(tmp_path)
    assert fetched.path.read_bytes() == ZIP
    assert server.asked == [None, "bytes=1000-", "bytes=3000-" if ranges else "bytes=2000-"]


def test_an_interrupted_run_is_taken_up_by_the_next(server, tmp_path, capsys):
    server.cut = [500, 500, 500]
    assert main(["fetch", "radio", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {server.url}: cannot be fetched: ")
    assert err.endswith("; run it again to go on\n")
    assert names(tmp_path) == [".data.zip.part"]
    fetch(tmp_path)
    assert server.asked[-1] == "bytes=1500-"
    assert (names(tmp_path), (tmp_path / "data.zip").read_bytes()) == (["data.zip"], ZIP)


@pytest.mark.usefixtures("server")
def test_a_part_that_has_it_all_or_too_much(tmp_path):
    for part in (ZIP, ZIP + b"more"):
        (tmp_path / ".data.zip.part").write_bytes(part)
        assert fetch(tmp_path).path.read_bytes() == ZIP
        (tmp_path / "data.zip").unlink()


def test_servers_that_stumble(server, tmp_path):
    server.status = [503, 500]
    server.tell = False
    assert fetch(tmp_path).path.read_bytes() == ZIP
    server.status = [404]
    with pytest.raises(FastHashError, match=r"data\.zip: HTTP 404 Not Found$"):
        fetch(tmp_path / "other")
    server.status = [503] * 3
    with pytest.raises(FastHashError, match="HTTP 503 Service Unavailable"):
        fetch(tmp_path / "other")


CHANGED = {**FILES, "data/train/FRI/0.png": FILES["data/train/FRI/1.png"]}
FEWER = dict(list(FILES.items())[1:])


@pytest.mark.parametrize(
    "body", [packed(CHANGED), packed(FEWER), b"<html>Not what you think</html>", ZIP[:-30], b"", ZIP[:900] + ZIP[1000:]]
)
def test_another_content_is_refused_and_leaves_nothing(server, tmp_path, capsys, body):
    server.body = body
    assert main(["fetch", "radio", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: {server.url}: not the set that was asked for: ")
    assert names(tmp_path) == []


@pytest.mark.usefixtures("server")
def test_no_other_file_is_written_over(tmp_path):
    for other in (ZIP[:2000], packed(CHANGED), b"mine"):
        (tmp_path / "data.zip").write_bytes(other)
        with pytest.raises(FastHashError, match="there already, and not this set"):
            fetch(tmp_path)
        assert (tmp_path / "data.zip").read_bytes() == other


@pytest.mark.usefixtures("server")
def test_no_network_is_one_line(tmp_path, capsys):
    closed = "http://127.0.0.1:9/data.zip"
    assert main(["fetch", "radio", str(tmp_path), "--url", closed]) == 1
    assert capsys.readouterr() == (
        "",
        f"error: {closed}: cannot be fetched: Connection refused; run it again to go on\n",
    )


@pytest.mark.usefixtures("server")
def test_a_mirror_may_pack_it_otherwise(tmp_path):
    inside = {name.replace("data/", "some/where/else/"): data for name, data in reversed(FILES.items())}
    mirror = tmp_path / "mirror.zip"
    mirror.write_bytes(packed({"README": b"", "__MACOSX/data/train/FRI/._0.png": b"x", **inside}, zipfile.ZIP_STORED))
    fetched = fetch(tmp_path / "out", url=mirror.as_uri())
    assert fetched.counts == {"train": 6, "valid": 3, "test": 3}
    assert fetched.path.read_bytes() == mirror.read_bytes()


def test_what_cannot_be_written_and_what_is_too_large(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(FastHashError, match=r"file/data\.zip: cannot write: "):
        fetch(tmp_path / "file")
    monkeypatch.setattr(fetching, "_LARGEST", 1000)
    with pytest.raises(FastHashError, match="more than 1000 bytes"):
        fetch(tmp_path / "out")
    assert len(server.asked) == 1


def test_one_run_at_a_time(server, tmp_path):
    inside = []

    def again(done, total):
        assert 0 < done <= total == len(ZIP)
        if not inside:
            inside.append(done)
            with pytest.raises(FastHashError, match="another fetch is at work"):
                fetch(tmp_path)

    assert fetch(tmp_path, progress=again).path.exists()
    assert len(inside) == len(server.asked) == 1


def test_wrong_arguments(tmp_path):
    with pytest.raises(ArgumentError, match="name: expected one of data, data-balanced, got 'all'"):
        fetch(tmp_path, "all")
    with pytest.raises(ArgumentError, match="url: expected https://"):
        fetch(tmp_path, url="ftp://example.org/data.zip")
    with pytest.raises(ReadError, match="not a readable zip"):
        content_digest(tmp_path / "nowhere.zip")


def test_the_pinned_content(real_radio):
    for name, counts in (("data", {"train": 1180, "valid": 398}), ("data-balanced", {"train": 1728, "valid": 576})):
        path = real_radio / f"{name}.zip"
        assert content_digest(path) == fetching.SETS[name].digest
        assert {split: count_images(path)[split] for split in counts} == counts


@pytest.mark.parametrize("url", ["http://[::1/x.zip", "http://127.0.0.1/\u00e9.zip"])
def test_an_address_that_is_none_is_named(tmp_path, url):
    with pytest.raises(ArgumentError, match="url: "):
        fetch(tmp_path, url=url)


def test_a_server_that_says_nothing_is_tried_again_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_TIMEOUT", 0.2)
    monkeypatch.setattr(fetching, "_WAITS", (0.0, 0.0))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections wait in its queue, and nobody answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.zip"
        with pytest.raises(FastHashError, match=rf"^{re.escape(url)}: cannot be fetched: timed out; run it again"):
            fetch(tmp_path, url=url)
        silent.settimeout(1.0)
        for _ in range(3):
            silent.accept()[0].close()
