# syntax=docker/dockerfile:1
# The image of invite-relay: one binary, certificates, no shell, a numeric user that is not root.
#
#   docker buildx build --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) \
#     --sbom=true --provenance=mode=max --tag registry.example/invite-relay:0.1.0 --push .
#
# --sbom makes BuildKit attach a list of what is in the image. The binary carries the list of its crates (cargo
# auditable), which scanners read; the release also has one in CycloneDX form (.github/workflows/release.yml).
#
# Where it was written there is no engine to build it with: scripts/test has hadolint read it, and plays its build stage
# (scripts/image-sources), which shows that what it copies is all that the build reads.

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

# Not the slim one: the allocator is built with make.
FROM rust:${RUST_VERSION}-${DEBIAN} AS build
WORKDIR /build
RUN cargo install --locked --version 0.7.0 cargo-auditable
# The dependencies in a layer of their own: it is made anew only when they change. The benchmarks stay empty: the manifest
# names them, so that cargo wants to see the files, and an image has no use for them.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/relay \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs benches/micro.rs benches/relay/main.rs \
    && cargo auditable build --release --locked \
    && rm -r src
COPY config/default.toml config/default.toml
COPY schemas schemas
COPY src src
# Cargo compares times, and those of the copied files may be older than the layer's.
RUN touch src/main.rs src/lib.rs \
    && cargo auditable build --release --locked \
    && mkdir data

# glibc and certificates, and nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="invite-relay" \
      org.opencontainers.image.description="Turns trucker-created events into Dashdoc invite codes, one valid code each" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /build/target/release/invite-relay /usr/local/bin/invite-relay
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/invite-relay/
# A volume that is mounted here begins with this owner.
COPY --from=build --chown=65532:65532 /build/data /var/lib/invite-relay
# A number: Kubernetes can't tell from a name that it isn't root.
USER 65532:65532
WORKDIR /var/lib/invite-relay
EXPOSE 8080 9090
# SIGTERM drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/invite-relay"]
CMD ["serve"]
