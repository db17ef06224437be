"""A storage type that needs nothing but a directory and a port of loopback.

It shows the conformance suite at work in seconds, and tests break it on purpose, one rule at a time, to show that the
suite can fail. Nothing for real data: its server is a few lines, and its protocol is in the clear.
"""
