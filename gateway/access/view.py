"""The models as a tenant sees them: those that it may use, and no other."""

from __future__ import annotations

from gateway.access.access import Access
from gateway.catalog import Catalog, Entry
from shared.errors import UnknownModel


class View:
    """What is told about models.

    Args:
        catalog: The models.
        access: Who may do what.
    """

    def __init__(self, catalog: Catalog, access: Access) -> None:
        self._catalog = catalog
        self._access = access

    def models(self, tenant: str) -> list[Entry]:
        """All that an admitted tenant may know of, by name."""
        visible = self._access.visible
        return [entry for entry in self._catalog.entries() if visible(tenant, entry.name)]

    def ready(self, tenant: str) -> list[Entry]:
        """Those of them that can be called."""
        return [entry for entry in self.models(tenant) if entry.state == "ready"]

    def model(self, tenant: str, name: str, field: str = "name") -> Entry:
        """One model.

        Args:
            tenant: Who asks, admitted.
            name: The served name.
            field: What the protocol calls the name.

        Raises:
            UnknownModel: Nobody serves it, or the tenant may not know.
        """
        self._catalog.refresh()
        entry = self._catalog.find(name)
        if entry is None or not self._access.visible(tenant, entry.name):
            raise UnknownModel(f"model {name[:200]!r} is not served here", field=field)
        return entry
