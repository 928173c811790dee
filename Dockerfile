# To have the images byte for byte the same each time, name them by digest as well: `docker buildx imagetools inspect NAME:TAG`
# prints NAME:TAG@sha256:... Distroless has no versions: its digest is the only one.
FROM rust:1.88.0-bookworm AS build
WORKDIR /build
COPY . .
# arm64 kernels may have pages of up to 64 KiB; an allocator built for smaller ones would not start there.
ENV JEMALLOC_SYS_WITH_LG_PAGE=16
# What cargo downloads and builds stays in the builder's cache, so a change of the sources rebuilds only this package.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin paybus \
    && strip --strip-debug -o /paybus target/release/paybus

# glibc, the system's certificates and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /paybus /usr/local/bin/paybus
ENV PAYBUS__HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
# No HEALTHCHECK: orchestrators ask /livez and /readyz. A gateway that is ill is no reason to restart a worker.
ENTRYPOINT ["/usr/local/bin/paybus"]
CMD ["worker"]
