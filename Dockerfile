# One image for every record: released PyTorch on CUDA, the archive, and the harness as its command.
#
#   docker build -t speedrun-archive --build-arg COMMIT="$(git describe --always --abbrev=12 --dirty=+changes)" .
#   docker run --rm --gpus all --ipc=host -v "$PWD/data:/archive/data" -v "$PWD/runs:/archive/runs" \
#       --user "$(id -u):$(id -g)" speedrun-archive replay 2025-10-15
#
# --ipc=host: NCCL and the data loaders share memory. --user: the mounted folders keep their owner.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

# Triton compiles its launchers with the C compiler and Python's headers at run time.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev less python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# HOME and USER hold for any --user: torch names its kernel cache by them.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/home/runner USER=runner
RUN useradd --create-home --home-dir /home/runner --uid 10001 runner \
    && chmod 777 /home/runner \
    && python3 -m venv /opt/venv

WORKDIR /archive
# pipefail and -e hold for every step below.
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
# The largest layer by far, and the one that changes least.
RUN pip install --no-cache-dir -c constraints.txt torch

COPY harness harness
COPY timing timing
COPY reports reports
COPY records records
RUN pip install --no-cache-dir -c constraints.txt -e '.[flash]' \
    && mkdir -p data runs \
    && chmod 777 data runs
VOLUME ["/archive/data", "/archive/runs"]

# `harness --version` and every run.json name the commit: the image holds no repository to ask.
ARG COMMIT=""
ENV SPEEDRUN_COMMIT=$COMMIT
LABEL org.opencontainers.image.revision=$COMMIT org.opencontainers.image.licenses=MIT

# By number, so that a host can tell it from its own users.
USER 10001
# The last step is the first use: an image in which nothing can be replayed is not built.
RUN harness --version && harness doctor
ENTRYPOINT ["harness"]
CMD ["--help"]
