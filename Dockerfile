# The CUDA stack in a container: the versions of requirements/cuda.lock, and a user without rights.
#
#   docker build -t selm .
#   docker run --rm --gpus all --ipc=host -v "$PWD/runs:/home/ubuntu/selm/runs" \
#       -v "$HOME/.cache/huggingface:/home/ubuntu/.cache/huggingface" selm make zephyr-selm
#
# The two folders have to exist, and to belong to user 1000, who runs all commands inside. The host
# needs NVIDIA's driver 580 or newer and its container toolkit. About 14 GB.
# This file was linted with hadolint; it has NOT been built yet, for want of a builder.
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04

# gcc and Python.h: Triton compiles a small C file when it first runs a kernel. No versions are named,
# because Ubuntu keeps only the newest patch of each.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates gcc git libc6-dev make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=1000 --group=1000 /home/ubuntu/selm

# The image's own user, ubuntu.
USER 1000:1000
WORKDIR /home/ubuntu/selm
COPY --chown=1000:1000 . .
RUN mkdir -p runs /home/ubuntu/.cache/huggingface && PIP_NO_CACHE_DIR=1 make setup STACK=cuda

# While the image was built, there was no GPU: without this, `make` would set up the CPU's stack.
ENV STACK=cuda
ENV PATH=/home/ubuntu/selm/.venv/bin:$PATH
CMD ["make", "help"]
