"""The side that answers: a protocol for models, the demo model, OpenAI-compatible servers.

What keeps a server's bad day from becoming ours stands around its model: see ``guarded.py``.

A model is a :class:`app.models.client.ModelClient`; :func:`app.models.build.build_models` makes
the ones that an operator has set up, and the registry hands them out by id.
"""
