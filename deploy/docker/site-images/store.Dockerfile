# MONGO_IMAGE where none can be pulled: the compiled store that speaks MongoDB's protocol. Built by make.sh, which puts
# the program into the context.
#
# As with mongo, MONGO_INITDB_ROOT_USERNAME and MONGO_INITDB_ROOT_PASSWORD ask for users, and name the first.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pymongo \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 999 mongodb \
    && useradd --uid 999 --gid 999 --no-create-home --home-dir /tmp mongodb \
    && install -d -o mongodb -g mongodb /data/db /data/configdb
COPY secantusd-rs /usr/local/bin/
COPY store/run /usr/local/bin/run
# Nobody reads change streams; they cost a quarter of a write.
ENV SECANTUS_DISABLE_OPLOG=1
USER mongodb
EXPOSE 27017
STOPSIGNAL SIGTERM
VOLUME ["/data/db"]
ENTRYPOINT ["/usr/local/bin/run"]
LABEL org.opencontainers.image.title="site/store"
