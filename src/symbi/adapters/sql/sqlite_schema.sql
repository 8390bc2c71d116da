-- The one store of a data folder: trail, ledger, runs, pins and approvals. Version 2.
-- WAL and synchronous=FULL: a commit that returned survives a crash of the process and of the machine.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE events (
    sequence   INTEGER PRIMARY KEY,   -- 1, 2, 3 …
    record     BLOB NOT NULL,         -- canonical JSON of the whole event
    chain_hash TEXT NOT NULL          -- hex, repeated from the record
) STRICT;

CREATE TABLE head (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    record BLOB NOT NULL              -- canonical JSON, signed
) STRICT;

CREATE TABLE effects (
    effect_id        TEXT PRIMARY KEY,
    run_id           TEXT NOT NULL,   -- empty for what the runtime does by itself
    position         INTEGER NOT NULL,
    agent_id         TEXT NOT NULL,
    action           TEXT NOT NULL,
    resource         TEXT NOT NULL,
    arguments_digest TEXT NOT NULL,
    recovery         TEXT NOT NULL,
    policy_version   TEXT NOT NULL,
    decision         BLOB NOT NULL,
    label            TEXT NOT NULL,
    epoch            INTEGER NOT NULL,
    attempt          INTEGER NOT NULL,
    state            TEXT NOT NULL,
    result           BLOB,
    error            BLOB
) WITHOUT ROWID, STRICT;

-- One effect for each place in a run; what the runtime does by itself has no place.
CREATE UNIQUE INDEX effects_place ON effects (run_id, position) WHERE position >= 0;
CREATE INDEX effects_open ON effects (state) WHERE state IN ('dispatched', 'unknown');

CREATE TABLE runs (
    run_id        TEXT PRIMARY KEY,
    agent_id      TEXT NOT NULL,
    file          TEXT NOT NULL,
    source_digest TEXT NOT NULL,
    inputs        BLOB NOT NULL,
    state         TEXT NOT NULL,
    output        BLOB,
    error         BLOB,
    started_at    TEXT NOT NULL,
    finished_at   TEXT
) WITHOUT ROWID, STRICT;

CREATE TABLE pins (
    tool            TEXT PRIMARY KEY,
    key_fingerprint TEXT NOT NULL,
    digest          TEXT NOT NULL,
    form            TEXT NOT NULL,
    definition      TEXT NOT NULL,
    pinned_at       TEXT NOT NULL,
    state           TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- What each decision was made on. Events name the digest, so that a changed row is found.
CREATE TABLE requests (
    effect_id TEXT NOT NULL,
    digest    TEXT NOT NULL,          -- SHA-256 (hex) of the request
    request   BLOB NOT NULL,          -- JSON with sorted keys
    PRIMARY KEY (effect_id, digest)
) WITHOUT ROWID, STRICT;

CREATE TABLE policy_sets (
    version TEXT PRIMARY KEY,         -- covers the text
    text    TEXT NOT NULL
) STRICT;

CREATE TABLE tallies (
    counter   TEXT NOT NULL,
    scope     TEXT NOT NULL,
    total     INTEGER NOT NULL,       -- of the entries below, and of those that became final without a window
    latest_ns INTEGER NOT NULL,       -- the time that it does not go back behind
    PRIMARY KEY (counter, scope)
) WITHOUT ROWID, STRICT;

CREATE TABLE tally_entries (
    counter   TEXT NOT NULL,
    scope     TEXT NOT NULL,
    at_ns     INTEGER NOT NULL,
    effect_id TEXT NOT NULL,
    amount    INTEGER NOT NULL,
    windowed  INTEGER NOT NULL,       -- 1: kept until it leaves the window; 0: until the effect is over
    PRIMARY KEY (counter, scope, at_ns, effect_id)
) WITHOUT ROWID, STRICT;

CREATE INDEX tally_entries_effect ON tally_entries (effect_id);

CREATE TABLE run_usage (
    run_id     TEXT PRIMARY KEY,
    started_ns INTEGER NOT NULL,
    effects    INTEGER NOT NULL,
    denied     INTEGER NOT NULL,
    calls      INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- What the task of a run calls for, and the labels of its inputs, where somebody has said.
CREATE TABLE run_grants (
    run_id     TEXT PRIMARY KEY,
    task_grant BLOB NOT NULL          -- JSON
) WITHOUT ROWID, STRICT;

CREATE TABLE run_labels (
    run_id TEXT PRIMARY KEY,
    labels BLOB NOT NULL              -- JSON
) WITHOUT ROWID, STRICT;

CREATE TABLE approvals (
    approval_id TEXT PRIMARY KEY,     -- the effect id
    run_id      TEXT NOT NULL,
    position    INTEGER NOT NULL,
    agent_id    TEXT NOT NULL,
    place       TEXT NOT NULL,        -- where it is asked for; empty once nothing more comes of it
    facts       BLOB NOT NULL,        -- canonical JSON of all that it is bound to
    digest      TEXT NOT NULL,
    shown       BLOB,                 -- canonical JSON of the arguments; gone where little is to be recorded
    state       TEXT NOT NULL,
    votes       BLOB NOT NULL,
    created_at  TEXT NOT NULL,
    expires_at  TEXT NOT NULL,
    revision    INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE UNIQUE INDEX approvals_place ON approvals (place) WHERE place != '';
CREATE INDEX approvals_open ON approvals (state) WHERE state IN ('waiting', 'granted');

-- Schedules that were taken up, and what became of each time that one was due.
CREATE TABLE schedules (
    schedule TEXT PRIMARY KEY,        -- file and name
    since_ns INTEGER NOT NULL         -- nothing before it is owed
) WITHOUT ROWID, STRICT;

CREATE TABLE occurrences (
    schedule TEXT NOT NULL,
    at_ns    INTEGER NOT NULL,        -- when it was due
    run_id   TEXT NOT NULL,           -- of its run; empty where it was skipped
    state    TEXT NOT NULL,
    reason   TEXT NOT NULL,
    PRIMARY KEY (schedule, at_ns)
) WITHOUT ROWID, STRICT;

CREATE INDEX occurrences_open ON occurrences (state) WHERE state = 'claimed';
