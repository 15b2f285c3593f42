"""What flips say about label noise.

With an independent error e per order, two orders disagree with f = 2e(1-e), and a pair that both orders
agree on is wrong with e^2 / (1-f): far less than f. Errors that both orders share are not seen by this.
"""

from __future__ import annotations

import math


def order_error(flip_rate: float) -> float:
    """The error e of a single order that explains a flip rate (0.5 from f = 0.5 on).

    Raises:
        ValueError: for a rate outside 0..1.
    """
    if not 0.0 <= flip_rate <= 1.0:
        raise ValueError(f"flip rate is {flip_rate}: give a share between 0 and 1")
    return (1.0 - math.sqrt(max(0.0, 1.0 - 2.0 * flip_rate))) / 2.0


def kept_error(flip_rate: float) -> float:
    """The expected error of the pairs that both orders agree on."""
    error = order_error(flip_rate)
    kept = error**2 + (1.0 - error) ** 2
    return error**2 / kept
