"""Management half of the StorPool plugin (design sections 2, 4 and 12)."""

from harness.driver.pools import PROVIDER
from harness.driver.provider import StorPoolProvider

__all__ = ["PROVIDER", "StorPoolProvider"]
