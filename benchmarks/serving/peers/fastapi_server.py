"""Plain FastAPI server that decodes an image and calls the network inside the handler.

python -m benchmarks.serving.peers.fastapi_server PLAN async|threads
"""

from __future__ import annotations

import sys

import torch
import uvicorn
from fastapi import Depends, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

from benchmarks.serving.peers.bodies import image_files
from benchmarks.serving.peers.network import PeerClassifier, PeerPlan


def application(plan: PeerPlan, *, threads: bool) -> FastAPI:
    """The application: one route, whose handler runs in the event loop or in FastAPI's threads."""
    app, classifier = FastAPI(), PeerClassifier(plan)

    def answer(files: list[bytes]) -> JSONResponse:
        images = torch.stack([classifier.decode(file) for file in files])
        return JSONResponse({"predictions": classifier.answer(images)})

    if threads:

        @app.post("/predict")
        def predict_in_thread(files: list[bytes] = Depends(image_files)) -> JSONResponse:
            return answer(files)
    else:

        @app.post("/predict")
        async def predict(request: Request) -> JSONResponse:
            return answer(await image_files(request))

    return app


if __name__ == "__main__":
    served = PeerPlan.read(sys.argv[1])
    app = application(served, threads=sys.argv[2] == "threads")
    uvicorn.run(app, host="127.0.0.1", port=served.port, log_level="warning", access_log=False)
