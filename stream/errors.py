"""What can go wrong, by what happens next.

::

    LiverankError
    ├── SettingsError   the configuration cannot be right: names key, source and what is allowed
    ├── Poison          this input can never be handled: dead-letter it, go on with the next
    ├── Retryable       somebody is away for a moment: try again with backoff, nothing is lost
    └── Fatal           this process cannot go on: stop with a message, the supervisor decides

Exceptions of the client libraries are turned into these where the client is confined
(`broker.py`, `clickhouse.py`); the rest of the code never sees a library's own exception.
"""


class LiverankError(Exception):
    """Base of everything that liverank raises on purpose."""


class SettingsError(LiverankError):
    """A setting is unknown or has an impossible value; the message says which, where, and what is allowed."""


class Poison(LiverankError):
    """One input that can never be handled; it goes to dead-letters with this message as its reason."""


class Retryable(LiverankError):
    """A transient fault of a server; the same call may succeed later."""


class Fatal(LiverankError):
    """The process cannot continue; it exits with code 1 and this message."""
