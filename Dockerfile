# syntax=docker/dockerfile:1

FROM rust:1-bookworm AS build
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
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s --retries=3 CMD ["/usr/local/bin/paybus", "check"]
ENTRYPOINT ["/usr/local/bin/paybus"]
CMD ["worker"]
