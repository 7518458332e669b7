"""What a model can do, as its card says it: `wire.ModelCard.features`.

Clients see these words too (`GetModel`, `millstream models`), so one that is there keeps its
meaning. A word that is not known is no fault: it is shown, and nothing follows from it.
"""

from __future__ import annotations

# ---- what becomes of work that was begun --------------------------------------------------------

RESUME = "resume"
"""Another worker goes on after the tokens, or items, that the client has: the same ones follow."""
RESUME_STRUCTURED = "resume_structured"
"""So too where the answer is restricted: the grammar is brought to the same state."""
ONCE = "once"
"""It has effects: it begins only when its claim is granted, and never twice."""

# ---- functions ----------------------------------------------------------------------------------

PREDICT = "predict"
"""It is a function, which `Predict` calls; without this it is a language model."""
STREAM = "stream"
"""It yields items, which `PredictStream` gives one by one."""
WAIT = "wait"
"""Its calls may wait in the queue while no worker is there."""

# ---- language models ----------------------------------------------------------------------------

CHAT = "chat"
"""It has a chat template, and so takes messages."""
CHOICES = "n"
"""It generates several choices for one prompt."""
LOGPROBS = "logprobs"
"""It gives log probabilities."""
LORA = "lora"
"""It has adapters."""
STRUCTURED = "structured"
"""It restricts an answer to a schema, an expression, choices or a grammar."""
PENALTIES = "penalties"
"""It knows presence, frequency and repetition penalties."""
SEED = "seed"
"""Of the same seed and prompt it makes the same answer."""
PREFIX_CACHE = "prefix_cache"
"""What prompts begin with in common is computed once."""
PRIORITY = "priority"
"""It takes the more urgent first among what waits in the engine."""
