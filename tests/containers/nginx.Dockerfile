# Debian's nginx in the place of the public image, where that cannot be pulled.
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends nginx-light libnginx-mod-stream wget \
    && rm -rf /var/lib/apt/lists/*
