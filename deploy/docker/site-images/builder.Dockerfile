# BUILDER_IMAGE where none can be pulled: PREFIX/python with binutils, whose strip makes images smaller.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
LABEL org.opencontainers.image.title="site/builder"
