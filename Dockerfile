# One image for every command: `costream relay` (default), `costream signaling`, `costream doctor`, …
# Debian trixie because its python3 is 3.13, the newest that costream supports, without a second package source.

FROM debian:trixie-slim AS base
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv cargo-web gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/costream
# cargo-web because trixie's other cargo is older than the crate needs.
# pip reads these from its environment; scripts/image.sh passes those that the host has set.
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT
WORKDIR /src
# Dependencies are a layer of their own, rebuilt only when pyproject.toml changes.
COPY pyproject.toml ./
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > requirements.txt
# The secret is the host's CA bundle: a network that ends TLS itself needs it, and it stays out of the image.
RUN --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export PIP_CERT=/run/secrets/ca_bundle; fi; \
    /opt/costream/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt "setuptools>=77" "setuptools-rust>=1.10"
# So is the native plane, rebuilt only when the crate changes; pip finds it in the same target directory.
ENV CARGO_TARGET_DIR=/opt/rust
COPY rust rust
RUN --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export CARGO_HTTP_CAINFO=/run/secrets/ca_bundle; fi; \
    cargo rustc --manifest-path rust/Cargo.toml --release --lib --features python --crate-type cdylib --locked
COPY . ./
RUN --mount=type=secret,id=ca_bundle \
    if [ -s /run/secrets/ca_bundle ]; then export CARGO_HTTP_CAINFO=/run/secrets/ca_bundle; fi; \
    /opt/costream/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
    && cd / && /opt/costream/bin/python -c 'import relay.plane._native' \
    && /opt/costream/bin/pip uninstall --yes setuptools setuptools-rust pip

FROM base
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/costream --create-home --shell /usr/sbin/nologin costream
ENV PATH=/opt/costream/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    COSTREAM_NODE__STATE_DIR=/var/lib/costream \
    COSTREAM_LOG__FORMAT=json
USER costream
WORKDIR /var/lib/costream
VOLUME /var/lib/costream
EXPOSE 7443/tcp 7443/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7080/healthz', timeout=2)"]
ENTRYPOINT ["costream"]
CMD ["relay", "--config", "/etc/costream/relay.toml"]
COPY configs/relay.toml configs/signaling.toml /etc/costream/
COPY --from=build /opt/costream /opt/costream
