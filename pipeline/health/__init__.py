"""Whether numbers look as chance would have them: published tests alone. Pure.

A test can fail a source, it never certifies one: a generator that anybody can predict passes too.
"""
