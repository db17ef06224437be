"""What can go wrong with the virtual datacentre, as an operator reads it."""

from __future__ import annotations


class LabError(Exception):
    """Something failed; the message says what and what to do. Exit status 1."""

    exit_status = 1


class RequirementError(LabError):
    """The machine lacks something, or the caller is not root. Exit status 2."""

    exit_status = 2


class NotUpError(LabError):
    """The lab is not up (never was, is down, or died). Exit status 3."""

    exit_status = 3
