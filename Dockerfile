# The image that can stand where apache/kafka stood: the same variables, user, paths and start command.

# The binary is built on the Debian that it runs on: that of another machine may want a newer C library than is here. What
# was compiled is kept from one build to the next, for RocksDB takes twenty minutes.
FROM rust:1-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libclang-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin sordini \
 && install -m 755 target/release/sordini /usr/local/bin/sordini

FROM debian:bookworm-slim

# Health checks that only look whether the port is open expect nc, which apache/kafka's image has.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends netcat-openbsd \
 && rm -rf /var/lib/apt/lists/*

# The image's user has the number 1000 there too, so volumes written by one can be read by the other.
RUN groupadd --gid 1000 appuser \
 && useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash appuser \
 && install -d -o appuser -g root -m 775 \
        /etc/kafka/docker /etc/kafka/secrets /mnt/shared/config /opt/kafka /var/lib/kafka /var/lib/kafka/data

COPY docker/run /etc/kafka/docker/run
# Kafka's tools where health checks and scripts look for them.
COPY docker/bin /opt/kafka/bin
COPY --from=build /usr/local/bin/sordini /usr/local/bin/sordini
# A binary that does not run here is better found out now.
RUN sordini --version

ENV CLUSTER_ID=5L6g3nShT-eMCtK--X86sw

USER appuser
# Kafka's protocol, and /metrics for Prometheus.
EXPOSE 9092 9404
VOLUME ["/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"]
CMD ["/etc/kafka/docker/run"]
