"""Management half of the StorPool plugin (design sections 2, 4 and 12)."""

from harness.driver.operations import ANSWER_TIME, SETTLE_TIME
from harness.driver.pools import PROVIDER
from harness.driver.provider import StorPoolProvider

__all__ = ["ANSWER_TIME", "PROVIDER", "SETTLE_TIME", "StorPoolProvider"]
