# MLflow's server with its clients of PostgreSQL and S3, in the version of requirements.lock.
FROM python:3.11-slim
COPY docker/requirements-mlflow.txt /tmp/
RUN useradd --uid 10001 --create-home mlflow \
    && pip install --quiet --no-cache-dir --no-deps --require-hashes -r /tmp/requirements-mlflow.txt
USER mlflow
WORKDIR /home/mlflow
EXPOSE 5000
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--serve-artifacts"]
