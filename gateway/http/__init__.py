"""The HTTP edge: OpenAI, TGI, server-sent events and WebSocket over the gateway's own sessions.

Imported only where `http_port` is set: the extra `http` brings FastAPI and uvicorn.
"""
