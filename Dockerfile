# martd alone: no shell, no package manager, nobody's user. Its root may be read-only, and it needs no
# capability: docker run --read-only --cap-drop ALL --security-opt no-new-privileges
# Every command of the build is a target of the Makefile.

FROM node:20-bookworm-slim AS duckdb
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Makefile ./
COPY scripts/ scripts/
RUN make duckdb DUCKDB_LIB_DIR=/duckdb

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
# No binary names this folder, as `make install` makes sure. /src would be a part of other paths.
WORKDIR /martd-build
ENV DUCKDB_LIB_DIR=/duckdb
COPY --from=duckdb /duckdb /duckdb
COPY . .
RUN make build
RUN make install DESTDIR=/out PREFIX=/usr/local
# A volume takes its owner and its mode from here: martd's user writes nowhere else, and nobody else reads it.
RUN make state-dir DESTDIR=/out

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/usr/local/bin/martd /usr/local/bin/martd
COPY --from=build /out/usr/local/lib/martd /usr/local/lib/martd
COPY --from=build /out/usr/local/share/doc/martd /usr/local/share/doc/martd
# Its parent is what is copied, for a folder that is named itself is made anew, for everyone.
COPY --from=build --chown=65532:65532 /out/var/lib/ /var/lib/
# The parent of `mart` is what is mounted there, read-only: a mount of `mart` itself would go on showing a
# directory that was replaced.
ENV PARQUET_DIR=/data/parquet MARTD_LISTEN=0.0.0.0:8321 MARTD_STATE_DIR=/var/lib/martd
USER 65532:65532
EXPOSE 8321
# Longer than MARTD_DRAIN_DELAY and MARTD_DRAIN: docker stop --time 30
STOPSIGNAL SIGTERM
# Without --start-interval, which Docker before 25 does not know.
HEALTHCHECK --interval=10s --timeout=12s --start-period=10m \
    CMD ["/usr/local/bin/martd", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/martd"]
CMD ["serve"]
