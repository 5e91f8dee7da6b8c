# MLflow's server with its clients of PostgreSQL and S3, in the version of requirements.lock.
FROM python:3.11-slim
COPY requirements.lock docker/requirements-remote.txt /tmp/
RUN useradd --uid 10001 --create-home mlflow && cat /tmp/requirements.lock /tmp/requirements-remote.txt > /tmp/pins.txt \
    && pip install --quiet --no-cache-dir --constraint /tmp/pins.txt mlflow boto3 psycopg2-binary==2.9.11
USER mlflow
WORKDIR /home/mlflow
EXPOSE 5000
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--serve-artifacts"]
