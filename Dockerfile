# The program with its dependencies; run-local.sh builds and runs it when RUNTIME=docker.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /workspace

# Dependencies before the program: editing the program does not install them again.
COPY pyproject.toml constraints.txt ./
RUN mkdir scaling_fl && touch scaling_fl/__init__.py README.md \
    && pip install -c constraints.txt "$(grep -E '^torch==' constraints.txt)" \
    && pip install -c constraints.txt -e '.[dev]'

ARG DEBUGGER=0
RUN if [ "$DEBUGGER" = 1 ]; then pip install 'debugpy>=1.8,<2'; fi

COPY . .

ENTRYPOINT ["python"]
