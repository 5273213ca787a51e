"""A circuit breaker (Nygard, Release It!): whoever keeps failing is left alone for a while."""

import time
from collections.abc import Callable

FAILURES = 5
OPEN_S = 30.0


class Breaker:
    """Opens after so many failures in a row; later one call may try, and closes it or opens it again.

    ``clock`` returns seconds that never go back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._opens_at = 0.0
        self._tries_until = 0.0

    @property
    def is_open(self) -> bool:
        """Says whether calls are kept away now; it changes nothing."""
        return self._clock() < max(self._opens_at, self._tries_until)

    def allows(self) -> bool:
        """Says whether a call may be made, which then has to be noted.

        The first one after a while keeps others away until it is known.
        """
        if self.is_open:
            return False
        if self._failures >= FAILURES:
            self._tries_until = self._clock() + OPEN_S
        return True

    def answered(self) -> None:
        """Notes a call that was answered, whether or not the answer was of use."""
        self._failures, self._tries_until = 0, 0.0

    def failed(self) -> None:
        """Notes a call that was not answered."""
        self._failures += 1
        self._tries_until = 0.0
        if self._failures >= FAILURES:
            self._opens_at = max(self._opens_at, self._clock() + OPEN_S)

    def released(self) -> None:
        """Notes a call that tells nothing of the provider: it was not made, or not carried out."""
        self._tries_until = 0.0

    def hold(self, seconds: float) -> None:
        """Keeps calls away for as long as the provider asked for."""
        self._opens_at = max(self._opens_at, self._clock() + seconds)
