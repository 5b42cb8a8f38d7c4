"""The time that a request will take, estimated from the calls so far: what would be late is refused at once."""

from __future__ import annotations

_WEIGHT = 0.1
"""Of the latest call in the averages."""


class Pace:
    """The rows on their way to a model, and the time of its calls.

    A call takes a time for itself and a time for each of its rows. Both are fitted to the recent calls, so that calls
    of single rows, which take nearly as long as calls of a thousand, do not make the model look slow.

    Args:
      most_rows: of a call.

    Attributes:
      rows: on their way.
    """

    def __init__(self, most_rows: int):
        self.rows = 0
        self._most_rows = most_rows
        self._weight = 0.0  # sum of the weights of all calls
        self._x = self._y = self._xx = self._xy = 0.0  # means: rows, seconds, and their products
        self._busy_until = 0.0

    def note(self, rows: int, began: float, ended: float) -> None:
        """Take a call into account.

        Args:
          began: when its rows were passed on; calls that the model has not finished are ahead of them.
          ended: when the answers came.
        """
        seconds, self._busy_until = ended - max(began, self._busy_until), ended
        self._weight += _WEIGHT * (1 - self._weight)
        share = _WEIGHT / self._weight
        self._x += share * (rows - self._x)
        self._y += share * (seconds - self._y)
        self._xx += share * (rows * rows - self._xx)
        self._xy += share * (rows * seconds - self._xy)

    def wait_s(self, rows: int) -> float:
        """Return the estimated seconds until further rows would be answered; 0 if none are ahead of them.

        So a model that has become fast again is found out, although nothing was admitted while it was slow.
        """
        if not self.rows or not self._weight:
            return 0.0
        spread = self._xx - self._x * self._x
        of_row = max(0.0, (self._xy - self._x * self._y) / spread) if spread > 1e-3 * self._xx else 0.0
        of_row = min(of_row, self._y / self._x) if self._x else 0.0
        of_call = self._y - of_row * self._x
        total = self.rows + rows
        return -(-total // self._most_rows) * of_call + total * of_row
