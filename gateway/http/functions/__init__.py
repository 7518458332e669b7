"""Functions over HTTP: one answer or a stream, as JSON, msgpack, events or the media they give.

- `asks`: what a body, a query and the headers say.
- `pack`: JSON and msgpack; in msgpack bytes are bytes.
- `formats`: what an answer's items look like, and which format a client wants.
- `media`: images, audio and video as what they are.
- `reply`: runs a call and answers with it.
- `routes`, `socket`: where it is served.
"""
