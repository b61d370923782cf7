"""Messages of the stats poller."""

import msgspec


class RereadSessions(msgspec.Struct, frozen=True):
    """Look in the ledger which sessions run. Also a hint that a session began or ended."""


StatsMessage = RereadSessions
