# docker build -f deploy/worker.Dockerfile -t engram-worker .
# PyPI's wheels of torch bring CUDA along. For a small image on processors alone, or for another CUDA, name
# PyTorch's own package index for that build: --build-arg TORCH_INDEX=...
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/engram
WORKDIR /src
COPY constraints.txt ./
RUN /opt/engram/bin/pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    -c constraints.txt "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY engram engram
COPY vault vault
COPY telemetry telemetry
COPY service service
COPY worker worker
RUN /opt/engram/bin/pip install -c constraints.txt .

FROM python:3.11-slim-bookworm
RUN useradd --system --no-create-home engram
COPY --from=build /opt/engram /opt/engram
ENV PATH=/opt/engram/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=33554432 OMP_WAIT_POLICY=PASSIVE \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER engram
WORKDIR /tmp
STOPSIGNAL SIGTERM
CMD ["engram", "worker"]
