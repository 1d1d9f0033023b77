"""Step 4 of 6, inspect: WebSocket (RFC 6455), which HTTP/1.1 gives way to: each client message is judged for itself.

Reading order: `frames` (the wire), `messages` (frames put together), `inspector`.
"""

from __future__ import annotations

from enforcer.protocols.websocket.inspector import WebSocketInspector

__all__ = ["WebSocketInspector"]
