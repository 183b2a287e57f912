"""Test of KServe's own client, unmodified, in an environment of its own, since its bounds are others."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from testing.data.digits import png
from testing.data.models import MODEL
from testing.servers.service import Service
from tests.service.protocol.bodies import INFER, outputs, pictures

PROGRAM = """
import asyncio, base64, json, sys
import numpy
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

url, rpc, key, model, *files = sys.argv[1:]
headers = {"Authorization": f"Bearer {key}"}
data = [open(file, "rb").read() for file in files]

def request(binary):
    given = InferInput("image", [len(data)], "BYTES")
    found = data if binary else [base64.b64encode(one) for one in data]
    given.set_data_from_numpy(numpy.array(found, numpy.object_), binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[given])

async def ask():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    said = {"live": await client.is_server_live(url), "ready": await client.is_server_ready(url)}
    said["model"] = await client.is_model_ready(url, model, headers=headers)
    for name, binary in (("binary", True), ("json", False)):
        answer = await client.infer(url, request(binary), model_name=model, headers=dict(headers))
        said[name] = [one for output in answer.outputs if output.name == "label" for one in output.data]
    try:
        await client.infer(url, request(True), model_name="none", headers=dict(headers))
    except Exception as error:
        said["refusal"] = str(error)
    remote = InferenceGRPCClient(rpc)
    metadata = [("authorization", f"Bearer {key}")]
    said["rpc"] = [await remote.is_server_ready(), await remote.is_model_ready(model, headers=metadata)]
    answer = await remote.infer(request(True), headers=metadata)
    (label,) = [output for output in answer.outputs if output.name == "label"]
    said["rpc_labels"] = [str(one) if isinstance(one, str) else one.decode() for one in label.as_numpy().tolist()]
    print(json.dumps(said))

asyncio.run(ask())
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_client_of_kserve(served: Service, tmp_path: Path) -> None:
    venv.create(tmp_path / "kserve", with_pip=True)
    python = str(tmp_path / "kserve" / "bin" / "python")
    install = [python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "kserve"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"kserve cannot be installed for {sys.version.split()[0]}: {done.stderr[-300:]}")
    data = [png(0, 100), png(3, 101)]
    files = [tmp_path / f"{number}.png" for number in range(len(data))]
    for file, one in zip(files, data, strict=True):
        file.write_bytes(one)
    key = str(served.client.headers["Authorization"]).removeprefix("Bearer ")
    assert served.server.rpc is not None
    program = [python, "-I", "-c", PROGRAM, served.url, served.server.rpc.address, key, MODEL, *map(str, files)]
    asked = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert asked.returncode == 0, asked.stderr[-3000:]
    said = json.loads(asked.stdout.splitlines()[-1])
    labels = outputs(served.client.post(INFER, **pictures(*data)))["label"].tolist()
    assert (said["live"], said["ready"], said["model"], said["rpc"]) == (True, True, True, [True, True])
    assert said["binary"] == said["json"] == said["rpc_labels"] == labels
    assert "none" in said["refusal"]
    assert "404" in said["refusal"]
