"""What all tests share: how Hypothesis draws examples.

`mr3`, the default: the same examples on every machine, and none remembered between runs, so that `make test` means the
same everywhere. What fresh examples find is kept as an `@example` of its test. `fresh` draws anew (`make test-all`, the
benchmark `property-seeds`). Neither has a deadline, because a busy machine is no reason to fail.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "mr3", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fresh", settings.get_profile("mr3"), derandomize=False, print_blob=True)
settings.load_profile("mr3")
