# One image for every role; docker-compose.yml says which. Every file fetched is checked against requirements.lock.
FROM python:3.12.11-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock requirements-dev.lock ./
# setuptools builds the wheel and stays behind; its hashes are among the developers' ones.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements-dev.lock > build.lock \
    && python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r build.lock \
    && python -m venv /app && /app/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY handlers handlers
COPY email_templates email_templates
RUN /venv/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir wheel . \
    && /app/bin/pip install --no-deps --no-index wheel/*.whl

FROM python:3.12.11-slim-bookworm
RUN groupadd --gid 10001 smt && useradd --uid 10001 --gid smt --no-create-home --shell /usr/sbin/nologin smt \
    && install -d -m 0700 -o smt -g smt /var/lib/smt-billing /var/backups/smt-billing
# pg_dump and pg_restore, of the version of the server in docker-compose.yml: backups need them.
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-client-15 && rm -rf /var/lib/apt/lists/*
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SMT_DATA_DIR=/var/lib/smt-billing
WORKDIR /var/lib/smt-billing
USER 10001:10001
HEALTHCHECK NONE
CMD ["smt-billing", "--help"]
