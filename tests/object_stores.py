"""Run an object store with the API of S3, and a proxy in front of it that can make requests fail."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pytest

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key-of-the-test", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test"}


def s3_client(address: str) -> Any:
    """Return a botocore client for a store."""
    return botocore.session.get_session().create_client(
        "s3", endpoint_url=address, region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip


@contextmanager
def object_store(bucket: str, log: Path) -> Iterator[str]:
    """Run a store with one bucket, and yield its address."""
    command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with (
        log.open("w") as stream,
        subprocess.Popen(command, stdout=stream, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    break
            else:
                pytest.fail("the server did not start:\n" + "".join(lines))
            # Further output is discarded, since it would fill the pipe and block the server.
            drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
            s3_client(found[0]).create_bucket(Bucket=bucket)
            yield found[0]
        finally:
            process.terminate()
    drain.wait()


class Proxy(ThreadingHTTPServer):
    """A proxy between a client and a store.

    Attributes:
        fault: returns the fault of a request, given its number and path. `error` answers with 500 or 503 in turn, `cut` closes
            the connection in the middle of the body, `stall` sends half of the body and then nothing, and `reset` closes the
            connection before an answer. None means no fault.
        faults: number of faults by kind.
    """

    daemon_threads = True

    def __init__(self, store: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = urlsplit(store).netloc
        self.fault: Callable[[int, str], str | None] = lambda number, path: None
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.lock = threading.Lock()
        self.ended = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self, path: str) -> tuple[int, str | None]:
        with self.lock:
            self.requests += 1
            fault = self.fault(self.requests, path)
            if fault:
                self.faults[fault] += 1
            return self.requests, fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about connections that were cut on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self) -> None:
        number, fault = self.server.next_fault(self.path)
        if fault == "reset":
            # Closing a socket that does not linger resets the connection.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if fault == "error":
            self.send_response(500 if number % 2 else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        to_store = http.client.HTTPConnection(self.server.store)
        to_store.request(self.command, self.path, headers=dict(self.headers.items()))
        answer = to_store.getresponse()
        body = answer.read()
        to_store.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "server", "date", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(body)))
        self.end_headers()
        if fault in ("cut", "stall"):
            self.wfile.write(body[: len(body) // 2])
            if fault == "stall":
                self.server.ended.wait()
            self.close_connection = True
            return
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        """Write no log."""


@contextmanager
def proxy(store: str) -> Iterator[Proxy]:
    """Run a proxy in front of a store."""
    with Proxy(store) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()
