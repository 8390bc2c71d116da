-- name: get_meta
SELECT value FROM meta WHERE key = ?

-- name: put_meta
INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value

-- name: append_event
INSERT INTO events (sequence, record, chain_hash) VALUES (?, ?, ?)

-- name: put_head
INSERT INTO head (id, record) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record

-- name: last_event
SELECT sequence, record, chain_hash FROM events ORDER BY sequence DESC LIMIT 1

-- name: get_head
SELECT record FROM head WHERE id = 1

-- name: read_events
SELECT sequence, record, chain_hash FROM events WHERE sequence >= ? AND sequence <= ? ORDER BY sequence LIMIT ?

-- name: put_effect
INSERT INTO effects (effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
                     decision, label, epoch, attempt, state, result, error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: move_effect
UPDATE effects SET policy_version = ?, decision = ?, epoch = ?, attempt = ?, state = ?, result = ?, error = ?
WHERE effect_id = ? AND state = ? AND epoch <= ?

-- name: effect_at
SELECT effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
       decision, label, epoch, attempt, state, result, error
FROM effects WHERE run_id = ? AND position = ? AND position >= 0

-- name: effects_of
SELECT effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
       decision, label, epoch, attempt, state, result, error
FROM effects WHERE run_id = ? AND position >= 0 ORDER BY position

-- name: effects_in
SELECT effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
       decision, label, epoch, attempt, state, result, error
FROM effects WHERE state = ? ORDER BY effect_id

-- name: put_run
INSERT INTO runs (run_id, agent_id, file, source_digest, inputs, state, output, error, started_at, finished_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: move_run
UPDATE runs SET state = ?, output = ?, error = ?, finished_at = ? WHERE run_id = ? AND state = ?

-- name: get_run
SELECT run_id, agent_id, file, source_digest, inputs, state, output, error, started_at, finished_at
FROM runs WHERE run_id = ?

-- name: runs
SELECT run_id, agent_id, file, source_digest, inputs, state, output, error, started_at, finished_at
FROM runs ORDER BY run_id DESC LIMIT ?

-- name: get_pin
SELECT tool, key_fingerprint, digest, form, definition, pinned_at, state FROM pins WHERE tool = ?

-- name: put_pin
INSERT INTO pins (tool, key_fingerprint, digest, form, definition, pinned_at, state) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tool) DO UPDATE SET key_fingerprint = excluded.key_fingerprint, digest = excluded.digest,
    form = excluded.form, definition = excluded.definition, pinned_at = excluded.pinned_at, state = excluded.state

-- name: pins
SELECT tool, key_fingerprint, digest, form, definition, pinned_at, state FROM pins ORDER BY tool

-- name: put_approval
INSERT INTO approvals (approval_id, run_id, position, agent_id, place, facts, digest, shown, state, votes, created_at,
                       expires_at, revision)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: move_approval
UPDATE approvals SET place = ?, shown = ?, state = ?, votes = ?, revision = ? WHERE approval_id = ? AND revision = ?

-- name: get_approval
SELECT approval_id, run_id, position, agent_id, place, facts, digest, shown, state, votes, created_at, expires_at, revision
FROM approvals WHERE approval_id = ?

-- name: approval_at
SELECT approval_id, run_id, position, agent_id, place, facts, digest, shown, state, votes, created_at, expires_at, revision
FROM approvals WHERE place = ? AND place != ''

-- name: approvals
SELECT approval_id, run_id, position, agent_id, place, facts, digest, shown, state, votes, created_at, expires_at, revision
FROM approvals WHERE state IN (SELECT value FROM json_each(?)) ORDER BY approval_id DESC LIMIT ?
