# The image that can stand where apache/kafka stood: the same variables, user, paths and start command.
# `make image` builds the binary first: building it in here would take RocksDB's twenty minutes every time.
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
COPY docker/sordini /usr/local/bin/sordini

ENV CLUSTER_ID=5L6g3nShT-eMCtK--X86sw

USER appuser
# Kafka's protocol, and /metrics for Prometheus.
EXPOSE 9092 9404
VOLUME ["/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"]
CMD ["/etc/kafka/docker/run"]
