# The service of docs/service.md, with exactly the packages of the lock file.
#
#   docker build -t ser-mtl .
#   docker run --publish 8000:8000 --volume "$PWD/runs/folder:/models:ro" --env MODEL=/models/stage2/fold1 ser-mtl
FROM python:3.11-slim

# For m4a, mp4, aac, amr and webm.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ffmpeg \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /service
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock

COPY pyproject.toml requirements.txt README.md LICENSE ./package/
COPY *.py ./package/
COPY ser_mtl ./package/ser_mtl
RUN pip install --no-cache-dir --no-deps --no-build-isolation ./package
COPY docs/service.py ./

RUN useradd --create-home service
USER service
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://localhost:8000/health')"]
CMD ["uvicorn", "service:app", "--host", "0.0.0.0", "--port", "8000"]
