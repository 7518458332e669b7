"""The functions of `benchmarks.apps` on a worker of Millstream."""

from __future__ import annotations

from benchmarks.servers import functions
from millstream import App

app = App("bench")
app.model("words", streaming=True, idempotent=True)(functions.words)
app.model("words-once", streaming=True)(functions.words)
app.model("burst", streaming=True, idempotent=True)(functions.burst)
app.model("burst-once", streaming=True)(functions.burst)
app.model("echo", idempotent=True)(functions.echo)
app.model("echo-once")(functions.echo)
app.model("nap")(functions.nap)
