# Two images of one program. run-local.sh builds and runs them when RUNTIME=docker.
#   train   the program and what it needs to run
#   debug   the same, with the tests, the developer's tools and a debugger
# torch's wheel decides about GPUs: the package index's usual one runs on CPU and on NVIDIA GPUs.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# Dependencies before the program: editing the program does not install them again.
FROM ${BASE_IMAGE} AS dependencies
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /workspace
COPY pyproject.toml constraints.txt ./
# An address that torch alone is taken from; it stays in the image's history, so no password in it.
ARG TORCH_INDEX_URL
RUN PIP_INDEX_URL=${TORCH_INDEX_URL:-$PIP_INDEX_URL}; \
    if [ -n "$PIP_INDEX_URL" ]; then export PIP_INDEX_URL; fi; \
    pip install -c constraints.txt "$(grep -E '^torch==' constraints.txt)"
RUN mkdir scaling_fl && touch scaling_fl/__init__.py README.md \
    && pip install -c constraints.txt -e '.[tensorboard,mlflow,quantised,template]'
# Any user may be the one who runs it (see run-local.sh), so its home is where everybody may write.
RUN useradd --uid 1000 --create-home scaling \
    && mkdir data runs checkpoints cache huggingface \
    && chmod 777 runs checkpoints cache huggingface
ENV HOME=/tmp \
    USER=scaling \
    SCALING_FL_CONTAINER=1 \
    SCALING_FL_CACHE=/workspace/cache \
    HF_HOME=/workspace/huggingface
ENTRYPOINT ["python"]

FROM dependencies AS train
COPY README.md ./
COPY configs configs
COPY scripts scripts
COPY scaling_fl scaling_fl
RUN chmod -R a+rX . && python -m compileall -q scaling_fl scripts
USER scaling
# There is no .git in the image; what it was built from is told to it, last of all.
ARG SCALING_FL_VERSION
ARG SCALING_FL_COMMIT
ARG SCALING_FL_DIRTY
ENV SCALING_FL_COMMIT=${SCALING_FL_COMMIT} SCALING_FL_DIRTY=${SCALING_FL_DIRTY}
LABEL org.opencontainers.image.title="scaling_fl" \
      org.opencontainers.image.description="Federated fine-tuning of language models" \
      org.opencontainers.image.version="${SCALING_FL_VERSION}" \
      org.opencontainers.image.revision="${SCALING_FL_COMMIT}"

FROM dependencies AS debug
RUN pip install -c constraints.txt -e '.[dev]'
COPY . .
RUN chmod -R a+rwX .
USER scaling
ARG SCALING_FL_VERSION
ARG SCALING_FL_COMMIT
ARG SCALING_FL_DIRTY
ENV SCALING_FL_COMMIT=${SCALING_FL_COMMIT} SCALING_FL_DIRTY=${SCALING_FL_DIRTY}
LABEL org.opencontainers.image.title="scaling_fl (debug)" \
      org.opencontainers.image.version="${SCALING_FL_VERSION}" \
      org.opencontainers.image.revision="${SCALING_FL_COMMIT}"
EXPOSE 5678
