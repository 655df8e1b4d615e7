"""The side that answers: a protocol for models, the demo model, OpenAI-compatible servers.

A model is a :class:`app.models.client.ModelClient`; :func:`app.models.build.build_models` makes
the ones that an operator has set up, and the registry hands them out by id.
"""
