-- The one store of a data folder: trail, ledger, runs, pins and approvals. Version 3.
-- WAL and synchronous=FULL: a commit that returned survives a crash of the process and of the machine.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- What an event is found by stands before its record, so that it is read without the record's further pages.
CREATE TABLE events (
    sequence   INTEGER PRIMARY KEY,   -- 1, 2, 3 …
    chain_hash TEXT NOT NULL,         -- hex, repeated from the record, as are the next four
    agent_id   TEXT NOT NULL,
    run_id     TEXT NOT NULL,         -- empty for what belongs to no run
    event_type TEXT NOT NULL,
    verdict    TEXT NOT NULL,         -- of decisions; empty elsewhere
    record     BLOB NOT NULL          -- canonical JSON of the whole event
) STRICT;

CREATE INDEX events_agent ON events (agent_id);  -- each ends in the sequence, as every index of SQLite
CREATE INDEX events_run ON events (run_id) WHERE run_id != '';
CREATE INDEX events_type ON events (event_type);
CREATE INDEX events_verdict ON events (verdict) WHERE verdict != '';

-- Which policies made the decisions.
CREATE TABLE event_policies (
    policy   TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (policy, sequence)
) WITHOUT ROWID, STRICT;

-- The newest checkpoint; covers every event.
CREATE TABLE head (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    record BLOB NOT NULL              -- signed note
) STRICT;

-- Those that are kept: of the cadence, and of each shutdown, with the cosignatures that were added later.
CREATE TABLE checkpoints (
    size INTEGER PRIMARY KEY,         -- how many events it covers
    note BLOB NOT NULL
) STRICT;

-- Complete tiles of the Merkle tree over the records: level 0 holds the hashes of leaves, each further one roots below.
CREATE TABLE tiles (
    level  INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hashes BLOB NOT NULL,             -- 256 of 32 bytes
    PRIMARY KEY (level, number)
) STRICT;

-- Closed parts of the trail that are in the audit storage, read back and verified.
CREATE TABLE segments (
    first      INTEGER PRIMARY KEY,   -- sequence of its first event
    last       INTEGER NOT NULL,      -- of its last, and the size of its checkpoint
    chain_hash TEXT NOT NULL,
    root       TEXT NOT NULL,
    folder     TEXT NOT NULL,         -- where it is, in the storage
    digest     TEXT NOT NULL,         -- SHA-256 (hex) of its events there
    last_at    TEXT NOT NULL,
    keep_until TEXT NOT NULL,         -- by the word of its own events; empty where none says so
    sealed_at  TEXT NOT NULL,
    removed_at TEXT NOT NULL          -- when its events left this store; empty while they are here
) STRICT;

-- Time stamps (RFC 3161) of checkpoints.
CREATE TABLE anchors (
    size      INTEGER NOT NULL,
    authority TEXT NOT NULL,
    time      TEXT NOT NULL,          -- by the authority's clock
    token     BLOB NOT NULL,          -- DER of the response
    PRIMARY KEY (size, authority)
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

-- What waits for a person, or what one has said: of tools, keys that sign them, and servers that were found.
CREATE TABLE reviews (
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    state      TEXT NOT NULL,
    digest     TEXT NOT NULL,
    definition TEXT NOT NULL,
    reason     TEXT NOT NULL,
    since      TEXT NOT NULL,
    PRIMARY KEY (kind, name)
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

-- The keys of data subjects, wrapped by the master; a destroyed one leaves a tombstone.
CREATE TABLE subject_keys (
    key_id       TEXT PRIMARY KEY,
    pseudonym    TEXT NOT NULL,       -- HMAC of the subject's name under a key derived from the master
    wrapped      BLOB,                -- NULL once destroyed
    created_at   TEXT NOT NULL,
    destroyed_at TEXT,
    name         BLOB                 -- sealed by the key; NULL once destroyed
) WITHOUT ROWID, STRICT;

CREATE UNIQUE INDEX subject_keys_living ON subject_keys (pseudonym) WHERE wrapped IS NOT NULL;
CREATE INDEX subject_keys_subject ON subject_keys (pseudonym);

CREATE TABLE subject_holds (
    pseudonym TEXT PRIMARY KEY,
    note      BLOB NOT NULL,          -- sealed under the subject's key
    held_at   TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- How far the erasure of each subject has come.
CREATE TABLE erasures (
    pseudonym TEXT PRIMARY KEY,
    state     TEXT NOT NULL,
    facts     BLOB NOT NULL,          -- JSON: what was done until then, or the certificate
    at        TEXT NOT NULL
) WITHOUT ROWID, STRICT;

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

-- Runs that other runs asked for.
CREATE TABLE run_parents (
    run_id        TEXT PRIMARY KEY,
    parent_run_id TEXT NOT NULL,
    root_run_id   TEXT NOT NULL,
    depth         INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE INDEX run_parents_parent ON run_parents (parent_run_id);

-- What was given up, by the run that it was or was to become.
CREATE TABLE dead_letters (
    run_id     TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    agent_id   TEXT NOT NULL,
    declared   TEXT NOT NULL,         -- the agent as its file declares it
    file       TEXT NOT NULL,
    code       TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    at         TEXT NOT NULL,
    state      TEXT NOT NULL,
    inputs     BLOB,                  -- a sealed, signed message, with grant and labels; NULL once the letter is closed
    task_grant BLOB,                  -- of an earlier release alone: JSON
    labels     BLOB,                  -- likewise
    error      BLOB,                  -- a sealed, signed message
    became     TEXT NOT NULL,         -- the run that it was replayed as; empty elsewhere
    closed_at  TEXT,
    note       BLOB,                  -- JSON: who closed it, and why
    epoch      INTEGER NOT NULL DEFAULT 0  -- of the bus, in which the oldest part of it was sealed; 0: by a release that did not
) WITHOUT ROWID, STRICT;

CREATE INDEX dead_letters_agent ON dead_letters (declared, state, at);
CREATE INDEX dead_letters_at ON dead_letters (at);
CREATE INDEX dead_letters_open ON dead_letters (state) WHERE state = 'open';
CREATE INDEX dead_letters_epoch ON dead_letters (epoch) WHERE state = 'open';

-- Agents that were made to stay.
CREATE TABLE agents (
    agent_id      TEXT PRIMARY KEY,
    file          TEXT NOT NULL,
    source_digest TEXT NOT NULL,
    state         TEXT NOT NULL,
    revision      INTEGER NOT NULL,   -- moves that it has made
    reason        TEXT NOT NULL,
    parent        TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    changed_at    TEXT NOT NULL
) WITHOUT ROWID, STRICT;

CREATE INDEX agents_state ON agents (state, agent_id);

-- Messages that wait for agents, in the order in which they fell due; no place is ever given twice.
CREATE TABLE mailbox (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,  -- and the id of its run
    declared   TEXT NOT NULL,
    agent_id   TEXT NOT NULL,
    sender     TEXT NOT NULL,
    body       BLOB NOT NULL,         -- a sealed, signed message
    labels     BLOB,                  -- of an earlier release alone: JSON
    due_ns     INTEGER NOT NULL,      -- 0: it is due
    expires_ns INTEGER,
    attempts   INTEGER NOT NULL,
    epoch      INTEGER NOT NULL DEFAULT 0  -- of the bus, in which the body was sealed; 0: by a release that did not
) STRICT;

CREATE INDEX mailbox_agent ON mailbox (agent_id, due_ns, sequence);
CREATE INDEX mailbox_declared ON mailbox (declared, sequence) WHERE due_ns = 0;
CREATE INDEX mailbox_later ON mailbox (due_ns) WHERE due_ns > 0;
CREATE INDEX mailbox_epoch ON mailbox (epoch);

-- Key pairs of agents on the bus; private parts wrapped by the master, and gone once they were destroyed.
CREATE TABLE bus_agents (
    agent        TEXT NOT NULL,
    generation   INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,    -- the first in which they are used
    signing_id   TEXT NOT NULL UNIQUE,
    signing      BLOB NOT NULL,       -- Ed25519, public
    agreement    BLOB NOT NULL,       -- X25519, public
    wrapped      BLOB,
    created_at   TEXT NOT NULL,
    destroyed_at TEXT,
    PRIMARY KEY (agent, generation)
) WITHOUT ROWID, STRICT;

-- Times in which the same keys seal, each with its secret, wrapped by the master; an ended one is removed.
CREATE TABLE bus_epochs (
    epoch    INTEGER PRIMARY KEY AUTOINCREMENT,  -- no number is ever given twice
    owner    INTEGER NOT NULL,
    wrapped  BLOB NOT NULL,
    begun_at TEXT NOT NULL
) STRICT;

-- Keys of topics, wrapped by the master.
CREATE TABLE bus_groups (
    topic    TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    wrapped  BLOB NOT NULL,
    begun_at TEXT NOT NULL,
    PRIMARY KEY (topic, epoch)
) WITHOUT ROWID, STRICT;

-- Which numbers of a sender have been taken in at an address.
CREATE TABLE bus_seen (
    sender  TEXT NOT NULL,
    address TEXT NOT NULL,
    epoch   INTEGER NOT NULL,
    highest INTEGER NOT NULL,
    gaps    BLOB NOT NULL,
    PRIMARY KEY (sender, address, epoch)
) WITHOUT ROWID, STRICT;

-- What runs may spend and have spent, each with what was spent below it.
CREATE TABLE budgets (
    run_id       TEXT PRIMARY KEY,
    agent_id     TEXT NOT NULL,
    parent       TEXT NOT NULL,       -- the run in whose account all of it is spent too; empty for none
    calls_most   INTEGER,             -- NULL sets no bound
    tokens_most  INTEGER,
    money_most   INTEGER,             -- millionths
    wall_most    INTEGER,             -- milliseconds
    cpu_most     INTEGER,             -- milliseconds
    calls_spent  INTEGER NOT NULL,
    tokens_spent INTEGER NOT NULL,
    money_spent  INTEGER NOT NULL,
    wall_spent   INTEGER NOT NULL,
    cpu_spent    INTEGER NOT NULL,
    calls_held   INTEGER NOT NULL,    -- in flight or in doubt
    tokens_held  INTEGER NOT NULL,
    money_held   INTEGER NOT NULL,
    wall_held    INTEGER NOT NULL,
    cpu_held     INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE INDEX budgets_agent ON budgets (agent_id);

CREATE TABLE budget_reservations (
    effect_id TEXT PRIMARY KEY,
    run_id    TEXT NOT NULL,          -- in whose account, and those above it
    calls     INTEGER NOT NULL,
    tokens    INTEGER NOT NULL,
    money     INTEGER NOT NULL,
    wall      INTEGER NOT NULL,
    cpu       INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- The labels of what runs gave, where there is anything to say.
CREATE TABLE run_answers (
    run_id TEXT PRIMARY KEY,
    label  BLOB NOT NULL              -- JSON
) WITHOUT ROWID, STRICT;

-- Large values, by the hash of their bytes: results, inputs and outputs that would not fit a page; see payloads.py.
CREATE TABLE payloads (
    digest BLOB PRIMARY KEY,          -- SHA-256 of the bytes; of sealed ones as they were sealed
    bytes  BLOB NOT NULL,
    uses   INTEGER NOT NULL           -- columns that refer to it
) STRICT;

-- Messages that `bus.send_message` has taken over, in the order of each pair; sealed and signed as they travel.
CREATE TABLE bus_outbox (
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    sender     TEXT NOT NULL,
    recipient  TEXT NOT NULL,
    wire       BLOB NOT NULL,         -- empty once it is received or dropped
    state      TEXT NOT NULL,
    attempts   INTEGER NOT NULL,
    due_ns     INTEGER NOT NULL,
    expires_ns INTEGER NOT NULL,
    code       TEXT NOT NULL,         -- why it was given up
    changed_ns INTEGER NOT NULL,
    epoch      INTEGER NOT NULL       -- in which it was sealed
) STRICT;

CREATE INDEX bus_outbox_epoch ON bus_outbox (epoch) WHERE state IN ('waiting', 'dead');
CREATE INDEX bus_outbox_waiting ON bus_outbox (recipient, position) WHERE state = 'waiting';
CREATE INDEX bus_outbox_dead ON bus_outbox (position) WHERE state = 'dead';
CREATE INDEX bus_outbox_dead_of ON bus_outbox (recipient, changed_ns, state) WHERE state = 'dead';
CREATE INDEX bus_outbox_over ON bus_outbox (changed_ns) WHERE state IN ('received', 'dropped');

-- Published messages that durable subscriptions may still ask for, and where each of those stands.
CREATE TABLE bus_stream (
    position   INTEGER PRIMARY KEY,
    subject    TEXT NOT NULL,
    message_id TEXT NOT NULL,
    wire       BLOB NOT NULL
) STRICT;

CREATE TABLE bus_cursors (
    name     TEXT PRIMARY KEY,
    subject  TEXT NOT NULL,
    position INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- What agents remember, and copies of it; numbers follow the times at which items of an agent were kept.
CREATE TABLE memories (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    copy       TEXT NOT NULL,         -- the checkpoint that it belongs to; empty for what is remembered
    id         TEXT NOT NULL,
    space      TEXT NOT NULL,         -- the agent
    kind       TEXT NOT NULL,
    form       TEXT NOT NULL,
    shared     INTEGER NOT NULL,
    level      TEXT NOT NULL,         -- of its label, what readers are decided on
    at_ms      INTEGER NOT NULL,
    expires_ms INTEGER,
    importance REAL NOT NULL,
    half_life  REAL NOT NULL,         -- in days
    tokens     INTEGER NOT NULL,
    times      INTEGER NOT NULL,
    digest     BLOB NOT NULL,
    meaning    INTEGER NOT NULL,      -- 0: no vector, 1: one is due, 2: it is there
    body       BLOB NOT NULL,         -- JSON, sealed where its label asks for it
    words      BLOB                   -- JSON: how often each word stands in it; NULL where the body is sealed
) STRICT;

CREATE UNIQUE INDEX memories_id ON memories (id, copy);
CREATE INDEX memories_time ON memories (space, at_ms, number) WHERE copy = '';
CREATE INDEX memories_kind ON memories (space, kind, at_ms, number) WHERE copy = '';
CREATE INDEX memories_sealed ON memories (space, at_ms, number) WHERE copy = '' AND words IS NULL;
CREATE INDEX memories_same ON memories (space, kind, digest) WHERE copy = '';
CREATE INDEX memories_age ON memories (at_ms);
CREATE INDEX memories_space_age ON memories (space, at_ms);
CREATE INDEX memories_end ON memories (expires_ms) WHERE expires_ms IS NOT NULL;
CREATE INDEX memories_due ON memories (number) WHERE copy = '' AND meaning = 1;
CREATE INDEX memories_copy ON memories (copy, number) WHERE copy != '';

-- The words and tags of items that are not sealed. Each agent has a list of its own: nothing of one bears on another.
CREATE TABLE memory_words (
    space  TEXT NOT NULL,
    word   TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (space, word, number)
) WITHOUT ROWID, STRICT;

CREATE TABLE memory_tags (
    space  TEXT NOT NULL,
    tag    TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (space, tag, number)
) WITHOUT ROWID, STRICT;

CREATE TABLE memory_levels (
    space TEXT NOT NULL,
    level TEXT NOT NULL,
    items INTEGER NOT NULL,
    PRIMARY KEY (space, level)
) WITHOUT ROWID, STRICT;

-- Items that are no more, and whose vectors may still be there.
CREATE TABLE memory_gone (
    id TEXT PRIMARY KEY
) WITHOUT ROWID, STRICT;

CREATE TABLE memory_copies (
    id    TEXT PRIMARY KEY,
    space TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE INDEX memory_copies_space ON memory_copies (space, at_ms);

-- Whose items or copies are more than there may be, for something of them is under a hold: a look at all of them is due.
CREATE TABLE memory_surplus (
    space TEXT NOT NULL,
    kind  TEXT NOT NULL,              -- of items; 'copies' for checkpoints
    PRIMARY KEY (space, kind)
) WITHOUT ROWID, STRICT;

-- What the files of agents said last of how long their memories last.
CREATE TABLE memory_terms (
    agent          TEXT PRIMARY KEY,
    retention_days REAL NOT NULL
) WITHOUT ROWID, STRICT;

-- Documents of knowledge bases. The row is the truth: a vector without one is found by nobody.
CREATE TABLE knowledge_access (
    access_id      INTEGER PRIMARY KEY,
    collection     TEXT NOT NULL,
    owner          TEXT NOT NULL,
    classification TEXT NOT NULL,
    purpose        TEXT NOT NULL,
    UNIQUE (collection, owner, classification, purpose)
) STRICT;

CREATE TABLE knowledge_documents (
    document_id TEXT PRIMARY KEY,
    collection  TEXT NOT NULL,
    source      TEXT NOT NULL,
    kind        TEXT NOT NULL,
    version     TEXT NOT NULL,        -- digest of all that decides what is kept; keyed where the body is sealed
    access_id   INTEGER NOT NULL,
    importance  REAL NOT NULL,
    modified_ns INTEGER NOT NULL,
    added_ns    INTEGER NOT NULL,
    size_bytes  INTEGER NOT NULL,
    chunks      INTEGER NOT NULL,
    body        BLOB NOT NULL         -- title, headings and text
) STRICT;

CREATE UNIQUE INDEX knowledge_sources ON knowledge_documents (collection, source);
CREATE INDEX knowledge_sorts ON knowledge_documents (access_id, collection);
CREATE INDEX knowledge_sizes ON knowledge_documents (access_id, chunks);
CREATE INDEX knowledge_ages ON knowledge_documents (added_ns);

CREATE TABLE knowledge_chunks (
    number      INTEGER PRIMARY KEY,  -- in the index of words
    chunk_id    TEXT NOT NULL UNIQUE, -- in the index of vectors
    document_id TEXT NOT NULL,
    ordinal     INTEGER NOT NULL,
    start       INTEGER NOT NULL,     -- in characters of the document's text
    stop        INTEGER NOT NULL,
    worded      INTEGER NOT NULL      -- 1 where its words stand in the index of words; those of a sealed one do not
) STRICT;

CREATE INDEX knowledge_chunks_of ON knowledge_chunks (document_id, ordinal);

-- Documents whose vectors may not be those of their rows: they are being written, or were when the process ended.
CREATE TABLE knowledge_pending (
    document_id TEXT PRIMARY KEY,
    collection  TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- From which folder the documents come whose sources begin with a name: those of another are not taken for them.
CREATE TABLE knowledge_folders (
    collection TEXT NOT NULL,
    name       TEXT NOT NULL,         -- what the sources begin with; of a file that was read alone, its source
    root       BLOB NOT NULL,         -- its path, as the system has it
    PRIMARY KEY (collection, name)
) WITHOUT ROWID, STRICT;

CREATE VIRTUAL TABLE knowledge_words USING fts5(headings, text, tokenize = 'porter unicode61 remove_diacritics 2');
