# KAFKA_IMAGE where none can be pulled: Debian's Java 17 and Kafka's own jars.
# Built by make.sh, which puts the jars into the context.
#
# Configured as apache/kafka is, by KAFKA_* variables: the class that reads them is in the jars.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 appuser \
    && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /tmp appuser \
    && install -d -o appuser -g appuser /opt/kafka/config /opt/kafka/logs /var/lib/kafka/data /mnt/shared/config
COPY jars/ /opt/kafka/libs/
COPY kafka/ /etc/kafka/docker/
USER appuser
EXPOSE 9092
STOPSIGNAL SIGTERM
VOLUME ["/var/lib/kafka/data"]
ENTRYPOINT ["/etc/kafka/docker/run"]
LABEL org.opencontainers.image.title="site/kafka"
