"""From the TCP socket to an RPC handler: HTTP/2 with its guards, calls, messages.

limits.py      what a peer may do, and what was refused
http2.py       the HTTP/2 state machine that notices hostile peers
connection.py  one client connection: keepalive, GOAWAY, windows
headers.py     request headers -> Request, or a Refusal
messages.py    length-prefixed messages in, with a cap, inflated where compressed
stream.py      the stream object that handlers get
calls.py       one call from its headers to its trailers
"""
