"""From the TCP socket to an RPC handler: HTTP/2 with its guards, calls, messages.

limits.py      what a peer may do, and what was refused
http2.py       the HTTP/2 state machine that notices hostile peers
inbound.py     the fast way in: known headers and plain data past h2's parser
lean.py        grpclib's connection and stream, made lean
connection.py  one client connection: keepalive, GOAWAY, windows
outgoing.py    a connection's writes, joined
blocks.py      the header blocks of an answer that goes well
headers.py     request headers -> Request, or a Refusal
messages.py    length-prefixed messages in, with a cap, inflated where compressed
writer.py      messages, headers and trailers out, past grpclib's and h2's objects
stream.py      the stream object that handlers get
calls.py       one call from its headers to its trailers
"""
