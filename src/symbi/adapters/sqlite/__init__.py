"""The embedded store: trail, ledger, runs and pins in one SQLite file (WAL, synchronous=FULL).

One process owns a data folder: an exclusive `flock` on `owner.lock`, held as long as the store is open, so that a
second writer is refused at once and a dead owner holds nothing. Each owner takes the next epoch; a write with an
older epoch than the stored one is refused. Anybody may read beside the owner. Statements stand in `../sql`.
"""

from symbi.adapters.sqlite.file import DATABASE_NAME, LOCK_NAME
from symbi.adapters.sqlite.health import StoreHealth, check_store
from symbi.adapters.sqlite.reader import SqliteReader
from symbi.adapters.sqlite.store import SqliteStore

__all__ = ["DATABASE_NAME", "LOCK_NAME", "SqliteReader", "SqliteStore", "StoreHealth", "check_store"]
