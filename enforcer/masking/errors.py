"""The one way in which masking fails: closed."""

from __future__ import annotations

from enforcer.errors import EnforcerError


class MaskError(EnforcerError):
    """This text cannot be masked safely, so the session refuses it. The message never quotes the answer."""
