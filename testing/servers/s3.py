"""S3 server in a thread (moto), with atomic conditional writes and an empty bucket."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

BUCKET = "engram-tests"

AWS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""Environment variables of a client of the server."""


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of an S3 server with an empty bucket, which runs until the block ends."""
    with _atomic_puts():
        yield from _serve_s3()


@contextmanager
def _atomic_puts() -> Iterator[None]:
    """Inside, moto creates an object only if absent in one step, like S3; by itself it takes two, which may race."""
    put_object, lock = S3Response.put_object, threading.Lock()

    def put_object_locked(response: S3Response) -> object:
        with lock:
            return put_object(response)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", put_object_locked)
        yield


def _serve_s3() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=AWS["AWS_REGION"],
        aws_access_key_id=AWS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=AWS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()
    yield endpoint
    server.stop()
