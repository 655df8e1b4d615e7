"""HTTP: the REST calls, the event streams, the pages and the probes.

The only importer of Litestar. Below it lie ``app.chat``, which does what a request asks for, and
``app.domain``; settings, Redis and the database are unknown here.
"""
