"""FastAPI server whose handler reads the body and answers nothing: what HTTP alone costs in Python.

python -m benchmarks.serving.peers.empty_server PORT
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> JSONResponse:
    await request.body()
    return JSONResponse({})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
