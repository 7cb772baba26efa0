"""FastAPI on uvicorn (uvloop, httptools): `/api/time` in the same envelope."""

from __future__ import annotations

import socket
import time

import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel

app = FastAPI()


class Envelope(BaseModel):
    """The envelope of an answer."""

    request: str
    time: int
    message: str
    data: int


@app.get("/api/time")
async def get_time(request: Request) -> Envelope:
    """The time in milliseconds since 1970 UTC."""
    now_ms = int(time.time() * 1000)
    return Envelope(request=request.url.path, time=now_ms, message="OK", data=now_ms)


def main() -> None:
    """Serves on a port that the system chooses, until it is terminated."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, log_level="warning", backlog=4096
    )
    listener.listen(4096)
    print(f"ready {listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
