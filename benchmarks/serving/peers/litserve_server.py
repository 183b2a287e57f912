"""LitServe server with batching, as its documentation advises.

    python -m benchmarks.serving.peers.litserve_server PLAN [zeromq]

The annotations are evaluated here: LitServe has FastAPI read that of `request`.
"""

import sys
from typing import Annotated, Any

import litserve
import torch
from fastapi import Depends
from torch import Tensor

from benchmarks.serving.peers.bodies import image_files
from benchmarks.serving.peers.network import PeerClassifier, PeerPlan

BATCH_SECONDS = 0.005
"""How long a batch waits to be filled."""

ImageFiles = Annotated[list[bytes], Depends(image_files)]


class ImageApi(litserve.LitAPI):
    """The network behind LitServe's hooks; a request is a list of images."""

    def __init__(self, plan: PeerPlan) -> None:
        super().__init__(max_batch_size=plan.batch, batch_timeout=BATCH_SECONDS)
        self._plan = plan

    def setup(self, device: str) -> None:
        self._classifier = PeerClassifier(self._plan)

    def decode_request(self, request: ImageFiles) -> Tensor:
        return torch.stack([self._classifier.decode(file) for file in request])

    def batch(self, inputs: list[Tensor]) -> tuple[Tensor, list[int]]:
        return torch.cat(inputs), [len(images) for images in inputs]

    def predict(self, x: tuple[Tensor, list[int]]) -> list[list[dict[str, Any]]]:
        images, counts = x
        answers = iter(self._classifier.answer(images))
        return [[next(answers) for _ in range(count)] for count in counts]

    def unbatch(self, output: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        return output

    def encode_response(self, output: list[dict[str, Any]]) -> dict[str, Any]:
        return {"predictions": output}


if __name__ == "__main__":
    served = PeerPlan.read(sys.argv[1])
    server = litserve.LitServer(
        ImageApi(served), accelerator="cpu", workers_per_device=served.workers, fast_queue="zeromq" in sys.argv
    )
    server.run(host="127.0.0.1", port=served.port, log_level="warning", generate_client_file=False, access_log=False)
