# syntax=docker/dockerfile:1
# Two images of one static binary and nothing else: no shell, no libraries, nothing to update.
#
#   docker build --target sidecar -t session-sidecar .        beside a bot: restore, run, watch, exec and the commands for people
#   docker build --target full -t session-sidecar:full .      the same with the WhatsApp runner: serve, runner (see NOTICE)
#
# Into the image of a bot:
#
#   COPY --from=ghcr.io/session-sidecar/session-sidecar:0.1.0 /session-sidecar /usr/local/bin/
#   ENTRYPOINT ["session-sidecar", "exec", "--"]

ARG RUST=1.95

FROM rust:${RUST}-slim-bookworm AS source
WORKDIR /source
# Nothing of the machine that builds is looked for at run time, and random numbers come from the kernel itself, not from a
# device that a root may lack. The target is named so that the flags do not reach build
# scripts and macros, which cannot be static.
ENV RUSTFLAGS="-C target-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\""
ENV CARGO_BUILD_TARGET=host-tuple
# The libraries, from the two files that name them: their layers last until these change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/main_job examples/offline /image/sessions \
 && echo 'fn main() {}' | tee src/main.rs benches/main_job/main.rs > examples/offline/main.rs \
 && touch src/lib.rs README.md \
 && chown 65532:65532 /image/sessions

FROM source AS sidecar-build
RUN cargo build --release --locked --no-default-features --bin session-sidecar
COPY . .
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --no-default-features --bin session-sidecar \
 && mv target/*/release/session-sidecar /image/

FROM source AS full-build
RUN cargo build --release --locked --no-default-features --features runner --bin session-sidecar
COPY . .
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --no-default-features --features runner --bin session-sidecar \
 && mv target/*/release/session-sidecar /image/

FROM scratch AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="session-sidecar" \
      org.opencontainers.image.description="Keeps a WhatsApp bot's session directory alive across redeploys, crashes and full disks" \
      org.opencontainers.image.source="https://github.com/session-sidecar/session-sidecar" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The root file system may be read-only: all that is written lies below /sessions.
ENV SIDECAR_ROOT=/sessions
COPY LICENSE NOTICE /
COPY --from=source --chown=65532:65532 /image/sessions /sessions
USER 65532:65532
# What waits for /readyz: a start may wait for whoever has the session and for Supabase, four minutes each.
HEALTHCHECK --interval=5s --timeout=5s --start-period=9m --retries=3 CMD ["/session-sidecar", "probe", "readyz"]
ENTRYPOINT ["/session-sidecar"]

FROM base AS full
LABEL org.opencontainers.image.licenses="MIT AND AGPL-3.0-only"
COPY --from=full-build /image/session-sidecar /
# On all interfaces, and so refused without a credential.
ENV PORT=3000
EXPOSE 3000
CMD ["serve"]

# The last one is what `docker build .` makes.
FROM base AS sidecar
LABEL org.opencontainers.image.licenses="MIT"
COPY --from=sidecar-build /image/session-sidecar /
EXPOSE 3081
CMD ["run"]
