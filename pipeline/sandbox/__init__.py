"""The local upstreams: a server that imitates each provider, rules and failures included.

``server`` has ``Sandbox``, ``serve`` and ``serving``; ``options`` has ``SandboxOptions``.
"""
