"""Who may call, for what, and how much of it.

- `access`: `Access`, what the gateway asks: who is this, may this begin, it has ended.
- `view`: the models as a tenant sees them.
- `tenants`: what a tenant may do and what it has left. Pure.
- `buckets`: the token bucket. Pure.
- `keys`: the file of API keys: made, read, written.
"""

from gateway.access.access import Access
from gateway.access.tenants import Limits

__all__ = ["Access", "Limits"]
