# SPDX-License-Identifier: Apache-2.0
# The image of the agent: `docker build -t ringfence .`. What goes in is the list of tools/image/packages; without a
# Docker daemon, `python3 -m tools.image` makes the same root filesystem and an OCI layout of it.
# With what custom probes need (bcc, LLVM, bpftool): `docker build -t ringfence:0.1.0-bcc --target with-bcc .`.
ARG BASE=debian:13-slim

# hadolint ignore=DL3006
FROM ${BASE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src
# The distribution's versions, whatever they are on the day: security updates are why the image is built again.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends bash binutils ca-certificates make python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY . .
# Probes, wheel, root filesystem. tools/deps brings the compiler, which stays in this stage.
RUN make --no-print-directory wheel \
 && apt-get update \
 && .venv/bin/python -m tools.image --rootfs-only --output /image \
 && rm -rf /var/lib/apt/lists/*

FROM build AS build-bcc
RUN apt-get update \
 && .venv/bin/python -m tools.image --rootfs-only --with-bcc --output /image-bcc \
 && rm -rf /var/lib/apt/lists/*

FROM scratch AS with-bcc
COPY --from=build-bcc /image-bcc/rootfs/ /
ENV PATH=/usr/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# hadolint ignore=DL3002
USER 0
ENTRYPOINT ["/usr/bin/ringfence"]
CMD ["agent"]

FROM scratch
COPY --from=build /image/rootfs/ /
ENV PATH=/usr/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# Root, for the files of tracefs, bpffs and cgroups; docs/reference/kubernetes.md has the five capabilities that it needs.
# hadolint ignore=DL3002
USER 0
ENTRYPOINT ["/usr/bin/ringfence"]
CMD ["agent"]
