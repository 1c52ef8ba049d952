# A node of Liveroom. Keys and settings come from /etc/liveroom/liveroom.toml; the private store lives in /var/lib/liveroom.
#   docker build -t liveroom .
#   docker run -v ./liveroom.toml:/etc/liveroom/liveroom.toml:ro -v ./keys:/etc/liveroom/keys:ro \
#     -v liveroom-data:/var/lib/liveroom -p 127.0.0.1:8080:8080 --stop-timeout 45 --ulimit nofile=200000 liveroom
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY engine engine
COPY protocol protocol
COPY loadtest loadtest
RUN python -m venv /opt/liveroom && /opt/liveroom/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.11-slim
RUN useradd --system --home-dir /var/lib/liveroom --create-home --shell /usr/sbin/nologin liveroom \
    && chmod 700 /var/lib/liveroom
COPY --from=build /opt/liveroom /opt/liveroom
USER liveroom
ENV LIVEROOM_DATA_DIR=/var/lib/liveroom \
    LIVEROOM_LISTEN=0.0.0.0:8080 \
    LIVEROOM_INTERNAL_LISTEN=0.0.0.0:9090
VOLUME /var/lib/liveroom
# 9090 is for the operator: readiness, metrics. Do not publish it.
EXPOSE 8080 9090
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s \
    CMD ["/opt/liveroom/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/readyz', timeout=2)"]
# An exec form: the service itself is process 1 and gets SIGTERM and SIGHUP.
ENTRYPOINT ["/opt/liveroom/bin/liveroom", "serve", "--config", "/etc/liveroom/liveroom.toml"]
