"""A service: POST a recording to /answer, and get what `ser-mtl predict --format json` says about it.

MODEL=me/xlsr-ser-stage2 uvicorn service:app --port 8000
curl --data-binary @call.mp3 'localhost:8000/answer?abstain=0.6'
"""

import os
from io import BytesIO

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool

import ser_mtl

MODEL = os.environ["MODEL"]  # a run folder or Hub id
LARGEST = int(os.environ.get("MEBIBYTES", 50)) * 2**20
recognizer = ser_mtl.load(MODEL)
app = FastAPI(title="Speech emotion")


@app.get("/health")
def health() -> dict:
    """Whether it is up, and what it tells."""
    return {"model": MODEL, "labels": recognizer.labels}


@app.post("/answer")
async def answer(request: Request, transcript: bool = True, abstain: float = Query(0.0, ge=0, le=1)) -> dict:
    """The answer to the recording that is the body of the request."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise HTTPException(413, f"larger than {LARGEST >> 20} MiB")
    recording = BytesIO(body)
    recording.name = "recording"  # which the errors name
    try:
        return await run_in_threadpool(recognizer, recording, transcript=transcript, abstain=abstain)
    except ser_mtl.UserError as error:
        raise HTTPException(422, str(error)) from error
