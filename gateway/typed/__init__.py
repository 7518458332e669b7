"""Functions at the gateway: typed methods of their own, and the untyped calls beside them.

- `schemas`: a worker's announced signature as messages; one that cannot be read hurts nobody.
- `options`: what a call's metadata says beside its message.
- `outlet`: from a session to a gRPC client, item by item, within the window.
- `awaited`, `call`: the same for who takes the items one by one.
- `calls`: opens calls, whatever protocol they came by.
- `untyped`: a function's messages from and to values, for `Predict` and for HTTP.
- `services`: the typed gRPC services, added and removed while the gateway runs.
"""
