-- name: get_meta
SELECT value FROM meta WHERE key = ?

-- name: put_meta
INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value

-- name: remove_meta
DELETE FROM meta WHERE key = ?

-- name: append_event
INSERT INTO events (sequence, chain_hash, agent_id, run_id, event_type, verdict, record) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: append_policy
INSERT INTO event_policies (policy, sequence) VALUES (?, ?)

-- name: append_tile
INSERT INTO tiles (level, number, hashes) VALUES (?, ?, ?)

-- name: put_checkpoint
INSERT INTO checkpoints (size, note) VALUES (?, ?) ON CONFLICT (size) DO UPDATE SET note = excluded.note

-- name: checkpoints
SELECT size, note FROM checkpoints WHERE size >= ? AND size <= ? ORDER BY size LIMIT ?

-- name: last_checkpoint
SELECT coalesce(max(size), 0) FROM checkpoints

-- name: get_tile
SELECT hashes FROM tiles WHERE level = ? AND number = ?

-- name: get_record
SELECT record FROM events WHERE sequence = ?

-- name: read_events_before
SELECT sequence, record, chain_hash FROM events_before WHERE sequence > ? ORDER BY sequence LIMIT ?

-- name: put_head
INSERT INTO head (id, record) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record

-- name: last_event
SELECT sequence, record, chain_hash FROM events ORDER BY sequence DESC LIMIT 1

-- name: get_head
SELECT record FROM head WHERE id = 1

-- name: read_events
SELECT sequence, record, chain_hash FROM events WHERE sequence >= ? AND sequence <= ? ORDER BY sequence LIMIT ?

-- name: read_events_down
SELECT sequence, record, chain_hash FROM events WHERE sequence <= ? AND sequence >= ? ORDER BY sequence DESC LIMIT ?

-- name: first_sequence
SELECT sequence FROM events ORDER BY sequence LIMIT 1

-- name: last_sequence
SELECT sequence FROM events ORDER BY sequence DESC LIMIT 1

-- name: events_by_agent
SELECT sequence FROM events INDEXED BY events_agent
WHERE agent_id = ? AND sequence >= ? ORDER BY sequence LIMIT ?

-- name: events_by_agent_down
SELECT sequence FROM events INDEXED BY events_agent
WHERE agent_id = ? AND sequence <= ? ORDER BY sequence DESC LIMIT ?

-- name: events_by_run
SELECT sequence FROM events INDEXED BY events_run
WHERE run_id = ? AND run_id != '' AND sequence >= ? ORDER BY sequence LIMIT ?

-- name: events_by_run_down
SELECT sequence FROM events INDEXED BY events_run
WHERE run_id = ? AND run_id != '' AND sequence <= ? ORDER BY sequence DESC LIMIT ?

-- name: events_by_type
SELECT sequence FROM events INDEXED BY events_type
WHERE event_type = ? AND sequence >= ? ORDER BY sequence LIMIT ?

-- name: events_by_type_down
SELECT sequence FROM events INDEXED BY events_type
WHERE event_type = ? AND sequence <= ? ORDER BY sequence DESC LIMIT ?

-- name: events_by_verdict
SELECT sequence FROM events INDEXED BY events_verdict
WHERE verdict = ? AND verdict != '' AND sequence >= ? ORDER BY sequence LIMIT ?

-- name: events_by_verdict_down
SELECT sequence FROM events INDEXED BY events_verdict
WHERE verdict = ? AND verdict != '' AND sequence <= ? ORDER BY sequence DESC LIMIT ?

-- name: events_by_policy
SELECT sequence FROM event_policies WHERE policy = ? AND sequence >= ? ORDER BY sequence LIMIT ?

-- name: events_by_policy_down
SELECT sequence FROM event_policies WHERE policy = ? AND sequence <= ? ORDER BY sequence DESC LIMIT ?

-- name: newest_with_index
SELECT sequence, record, chain_hash, agent_id, run_id, event_type, verdict FROM events ORDER BY sequence DESC LIMIT ?

-- name: has_policy
SELECT 1 FROM event_policies WHERE policy = ? AND sequence = ?

-- name: put_effect
INSERT INTO effects (effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
                     decision, label, epoch, attempt, state, result, error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: move_effect
UPDATE effects SET policy_version = ?, decision = ?, epoch = ?, attempt = ?, state = ?, result = ?, error = ?
WHERE effect_id = ? AND state = ? AND epoch <= ?

-- name: redo_effect
UPDATE effects SET resource = ?, arguments_digest = ?, recovery = ?, label = ?,
       policy_version = ?, decision = ?, epoch = ?, attempt = ?, state = ?, result = ?, error = ?
WHERE effect_id = ? AND state = ? AND epoch <= ?

-- name: effect_at
SELECT effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
       decision, label, epoch, attempt, state, WHOLE(result), WHOLE(error)
FROM effects WHERE run_id = ? AND position = ? AND position >= 0

-- name: effects
SELECT effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
       decision, label, epoch, attempt, state, WHOLE(result), WHOLE(error)
FROM effects ORDER BY effect_id DESC LIMIT ?

-- name: effects_of
SELECT effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
       decision, label, epoch, attempt, state, WHOLE(result), WHOLE(error)
FROM effects WHERE run_id = ? AND position >= 0 ORDER BY position

-- name: effects_in
SELECT effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
       decision, label, epoch, attempt, state, WHOLE(result), WHOLE(error)
FROM effects WHERE state = ? ORDER BY effect_id

-- name: open_effects_in
SELECT effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
       decision, label, epoch, attempt, state, WHOLE(result), WHOLE(error)
FROM effects WHERE state IN ('dispatched', 'unknown') AND state = ? ORDER BY effect_id

-- name: put_payload
INSERT INTO payloads (digest, bytes, uses) VALUES (?, ?, 0) ON CONFLICT (digest) DO NOTHING

-- name: drop_unused_payload
DELETE FROM payloads WHERE digest = ? AND uses < 1

-- name: has_payloads
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'payloads'

-- name: open_effects_in
SELECT effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
       decision, label, epoch, attempt, state, WHOLE(result), WHOLE(error)
FROM effects WHERE state IN ('dispatched', 'unknown') AND state = ? ORDER BY effect_id

-- name: put_run
INSERT INTO runs (run_id, agent_id, file, source_digest, inputs, state, output, error, started_at, finished_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: move_run
UPDATE runs SET state = ?, output = ?, error = ?, finished_at = ? WHERE run_id = ? AND state = ?

-- name: get_run
SELECT run_id, agent_id, file, source_digest, WHOLE(inputs), state, WHOLE(output), WHOLE(error), started_at, finished_at,
       run_grants.task_grant, run_labels.labels
FROM runs LEFT JOIN run_grants USING (run_id) LEFT JOIN run_labels USING (run_id) WHERE run_id = ?

-- name: runs
SELECT run_id, agent_id, file, source_digest, WHOLE(inputs), state, WHOLE(output), WHOLE(error), started_at, finished_at,
       run_grants.task_grant, run_labels.labels
FROM runs LEFT JOIN run_grants USING (run_id) LEFT JOIN run_labels USING (run_id) ORDER BY run_id DESC LIMIT ?

-- name: get_pin
SELECT tool, key_fingerprint, digest, form, definition, pinned_at, state FROM pins WHERE tool = ?

-- name: put_pin
INSERT INTO pins (tool, key_fingerprint, digest, form, definition, pinned_at, state) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tool) DO UPDATE SET key_fingerprint = excluded.key_fingerprint, digest = excluded.digest,
    form = excluded.form, definition = excluded.definition, pinned_at = excluded.pinned_at, state = excluded.state

-- name: pin_heads
SELECT tool, key_fingerprint FROM pins ORDER BY tool

-- name: pins
SELECT tool, key_fingerprint, digest, form, definition, pinned_at, state FROM pins ORDER BY tool

-- name: get_review
SELECT kind, name, state, digest, definition, reason, since FROM reviews WHERE kind = ? AND name = ?

-- name: put_review
INSERT OR REPLACE INTO reviews (kind, name, state, digest, definition, reason, since) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: drop_review
DELETE FROM reviews WHERE kind = ? AND name = ?

-- name: reviews
SELECT kind, name, state, digest, definition, reason, since FROM reviews ORDER BY kind, name

-- name: put_request
INSERT INTO requests (effect_id, digest, request) VALUES (?, ?, ?) ON CONFLICT (effect_id, digest) DO NOTHING

-- name: requests
SELECT effect_id, digest, request FROM requests WHERE (effect_id, digest) > (?, ?) ORDER BY effect_id, digest LIMIT ?

-- name: requests_of
SELECT effect_id, digest, request FROM requests WHERE effect_id = ? ORDER BY digest

-- name: has_policy_set
SELECT 1 FROM policy_sets WHERE version = ?

-- name: put_policy_set
INSERT INTO policy_sets (version, text) VALUES (?, ?) ON CONFLICT (version) DO NOTHING

-- name: get_policy_set
SELECT text FROM policy_sets WHERE version = ?

-- name: policy_set_versions
SELECT version FROM policy_sets ORDER BY version

-- name: get_effect
SELECT effect_id, run_id, position, agent_id, action, resource, arguments_digest, recovery, policy_version,
       decision, label, epoch, attempt, state, WHOLE(result), WHOLE(error)
FROM effects WHERE effect_id = ?

-- name: get_tally
SELECT total, latest_ns FROM tallies WHERE counter = ? AND scope = ?

-- name: put_tally
INSERT INTO tallies (counter, scope, total, latest_ns) VALUES (?, ?, ?, ?)
ON CONFLICT (counter, scope) DO UPDATE SET total = excluded.total, latest_ns = excluded.latest_ns

-- name: tally_expired
SELECT coalesce(sum(amount), 0), count(*) FROM tally_entries WHERE counter = ? AND scope = ? AND at_ns <= ?

-- name: tally_oldest
SELECT at_ns FROM tally_entries WHERE counter = ? AND scope = ? AND at_ns > ? ORDER BY at_ns LIMIT 1

-- name: tally_of_effect
SELECT coalesce(sum(amount), 0) FROM tally_entries INDEXED BY tally_entries_effect
WHERE effect_id = ? AND counter = ? AND scope = ? AND at_ns > ?

-- name: prune_tally
DELETE FROM tally_entries WHERE counter = ? AND scope = ? AND at_ns <= ?

-- name: put_tally_entry
INSERT INTO tally_entries (counter, scope, at_ns, effect_id, amount, windowed) VALUES (?, ?, ?, ?, ?, ?)

-- name: entries_of_effect
SELECT counter, scope, sum(amount) FROM tally_entries WHERE effect_id = ? GROUP BY counter, scope

-- name: take_from_tally
UPDATE tallies SET total = total - ? WHERE counter = ? AND scope = ?

-- name: drop_entries
DELETE FROM tally_entries WHERE effect_id = ?

-- name: drop_final_entries
DELETE FROM tally_entries WHERE effect_id = ? AND windowed = 0

-- name: get_usage
SELECT started_ns, effects, denied, calls FROM run_usage WHERE run_id = ?

-- name: put_usage
INSERT INTO run_usage (run_id, started_ns, effects, denied, calls) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET effects = excluded.effects, denied = excluded.denied, calls = excluded.calls

-- name: put_run_grant
INSERT INTO run_grants (run_id, task_grant) VALUES (?, ?)

-- name: put_run_labels
INSERT INTO run_labels (run_id, labels) VALUES (?, ?)

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

-- name: segments
SELECT first, last, chain_hash, root, folder, digest, last_at, keep_until, sealed_at, removed_at
FROM segments ORDER BY first

-- name: put_segment
INSERT INTO segments (first, last, chain_hash, root, folder, digest, last_at, keep_until, sealed_at, removed_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: mark_segment_removed
UPDATE segments SET removed_at = ? WHERE first = ? AND last = ? AND removed_at = ''

-- name: remove_events
DELETE FROM events WHERE sequence >= ? AND sequence <= ?

-- name: remove_event_policies
WITH RECURSIVE named (policy) AS (
    SELECT min(policy) FROM event_policies
    UNION ALL
    SELECT (SELECT min(policy) FROM event_policies WHERE policy > named.policy) FROM named WHERE policy IS NOT NULL
)
DELETE FROM event_policies WHERE policy IN (SELECT policy FROM named) AND sequence >= ? AND sequence <= ?

-- name: events_of_type
SELECT sequence, record, chain_hash FROM events WHERE event_type = ? ORDER BY sequence DESC LIMIT ?

-- name: anchors
SELECT size, token, time, authority FROM anchors WHERE size >= ? AND size <= ? ORDER BY size, time

-- name: last_anchor
SELECT coalesce(max(size), 0) FROM anchors

-- name: put_anchor
INSERT INTO anchors (size, authority, time, token) VALUES (?, ?, ?, ?)
ON CONFLICT (size, authority) DO UPDATE SET time = excluded.time, token = excluded.token

-- name: put_subject_key
INSERT INTO subject_keys (key_id, pseudonym, wrapped, created_at, destroyed_at, name) VALUES (?, ?, ?, ?, ?, ?)

-- name: subject_key
SELECT key_id, pseudonym, wrapped, created_at, destroyed_at, name FROM subject_keys WHERE key_id = ?

-- name: subject_keys
SELECT key_id, pseudonym, wrapped, created_at, destroyed_at, name FROM subject_keys WHERE pseudonym = ?
ORDER BY created_at, key_id

-- name: any_subject_key
SELECT key_id, pseudonym, wrapped, created_at, destroyed_at, name FROM subject_keys WHERE wrapped IS NOT NULL LIMIT 1

-- name: blank_subject_keys
UPDATE subject_keys SET wrapped = zeroblob(length(wrapped)), name = zeroblob(length(name)) WHERE pseudonym = ? AND wrapped IS NOT NULL

-- name: destroy_subject_keys
UPDATE subject_keys SET wrapped = NULL, name = NULL, destroyed_at = ? WHERE pseudonym = ? AND wrapped IS NOT NULL

-- name: set_hold
INSERT INTO subject_holds (pseudonym, note, held_at) VALUES (?, ?, ?)
ON CONFLICT (pseudonym) DO UPDATE SET note = excluded.note, held_at = excluded.held_at

-- name: hold_of
SELECT pseudonym, note, held_at FROM subject_holds WHERE pseudonym = ?

-- name: holds
SELECT pseudonym, note, held_at FROM subject_holds ORDER BY pseudonym

-- name: release_hold
DELETE FROM subject_holds WHERE pseudonym = ?

-- name: all_subject_keys
SELECT key_id, pseudonym, wrapped, created_at, destroyed_at, name FROM subject_keys WHERE key_id > ?
ORDER BY key_id LIMIT ?

-- name: put_erasure
INSERT INTO erasures (pseudonym, state, facts, at) VALUES (?, ?, ?, ?)
ON CONFLICT (pseudonym) DO UPDATE SET state = excluded.state, facts = excluded.facts, at = excluded.at

-- name: erasures
SELECT pseudonym, state, facts, at FROM erasures WHERE ?1 IS NULL OR pseudonym = ?1 ORDER BY at, pseudonym

-- name: rows_of_trail
SELECT sequence, record FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?

-- name: rows_of_effects
SELECT effect_id, run_id, effect_id, '', WHOLE(result), WHOLE(error) FROM effects WHERE effect_id > ? ORDER BY effect_id LIMIT ?

-- name: rows_of_requests
SELECT effect_id || ' ' || digest, coalesce(effects.run_id, ''), effect_id, '', request
FROM requests LEFT JOIN effects USING (effect_id)
WHERE (effect_id, requests.digest) > (substr(?1, 1, instr(?1, ' ') - 1), substr(?1, instr(?1, ' ') + 1))
ORDER BY effect_id, requests.digest LIMIT ?

-- name: rows_of_runs
SELECT run_id, run_id, '', started_at, WHOLE(inputs), WHOLE(output), WHOLE(error), run_labels.labels, run_grants.task_grant
FROM runs LEFT JOIN run_grants USING (run_id) LEFT JOIN run_labels USING (run_id)
WHERE run_id > ? ORDER BY run_id LIMIT ?

-- name: rows_of_approvals
SELECT approval_id, run_id, approval_id, created_at, facts, shown, votes FROM approvals WHERE approval_id > ?
ORDER BY approval_id LIMIT ?

-- name: rows_of_keys
SELECT pseudonym, '', '', held_at, note FROM subject_holds WHERE pseudonym > ? ORDER BY pseudonym LIMIT ?

-- name: open_runs
SELECT run_id, state, WHOLE(inputs), labels FROM runs LEFT JOIN run_labels USING (run_id) WHERE state IN ('running', 'held')

-- name: results_of
SELECT coalesce(WHOLE(result), WHOLE(error)) FROM effects WHERE run_id = ? AND coalesce(result, error) IS NOT NULL

-- name: open_approvals
SELECT approval_id, state, facts, shown FROM approvals WHERE state IN ('waiting', 'granted')

-- name: open_effects
SELECT effect_id, state, request FROM effects JOIN requests USING (effect_id) WHERE state IN ('dispatched', 'unknown')

-- name: tables
SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name

-- name: first_live
SELECT min(sequence) FROM events

-- name: operators_texts
SELECT text FROM policy_sets UNION ALL SELECT definition FROM pins
UNION ALL SELECT definition FROM reviews UNION ALL SELECT reason FROM reviews

-- name: put_schedule
INSERT INTO schedules (schedule, since_ns) VALUES (?, ?) ON CONFLICT (schedule) DO NOTHING

-- name: get_schedule
SELECT since_ns FROM schedules WHERE schedule = ?

-- name: put_occurrence
INSERT INTO occurrences (schedule, at_ns, run_id, state, reason) VALUES (?, ?, ?, ?, ?)

-- name: forget_occurrences
DELETE FROM occurrences WHERE schedule = ? AND at_ns < ? AND state <> 'claimed'

-- name: end_occurrence
UPDATE occurrences SET state = ?, reason = ? WHERE schedule = ? AND at_ns = ? AND state = 'claimed'

-- name: last_occurrence
SELECT schedule, at_ns, run_id, state, reason FROM occurrences WHERE schedule = ? ORDER BY at_ns DESC LIMIT 1

-- name: open_occurrences
SELECT schedule, at_ns, run_id, state, reason FROM occurrences WHERE state = 'claimed' ORDER BY at_ns, schedule

-- name: put_descent
INSERT INTO run_parents (run_id, parent_run_id, root_run_id, depth) VALUES (?, ?, ?, ?) ON CONFLICT (run_id) DO NOTHING

-- name: descent_of
SELECT run_id, parent_run_id, root_run_id, depth FROM run_parents WHERE run_id = ?

-- name: chain_of
WITH RECURSIVE chain (run_id, height) AS (
    VALUES (?, 0)
    UNION ALL
    SELECT parent_run_id, height + 1 FROM chain JOIN run_parents USING (run_id) WHERE height < ?
)
SELECT run_id, coalesce(runs.agent_id, '') FROM chain LEFT JOIN runs USING (run_id) ORDER BY height

-- name: asked_by
SELECT run_id, parent_run_id, root_run_id, depth FROM run_parents WHERE parent_run_id = ? ORDER BY run_id

-- name: put_letter
INSERT INTO dead_letters (run_id, kind, agent_id, declared, file, code, attempts, at, state, inputs, task_grant, labels, error, became, closed_at, note, epoch)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id) DO NOTHING

-- name: close_letter
UPDATE dead_letters SET state = ?, inputs = NULL, task_grant = NULL, labels = NULL, error = NULL, became = ?, closed_at = ?, note = ?
WHERE run_id = ? AND state = 'open'

-- name: forget_letters
DELETE FROM dead_letters WHERE run_id IN (
    SELECT run_id FROM dead_letters WHERE declared = ? AND state <> 'open' ORDER BY closed_at DESC, run_id DESC LIMIT -1 OFFSET ?
) AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = became AND runs.state IN ('running', 'held'))

-- name: replays_left_open
SELECT became FROM dead_letters JOIN runs ON runs.run_id = became
WHERE dead_letters.state = 'replayed' AND runs.state IN ('running', 'held') ORDER BY closed_at, became

-- name: get_letter
SELECT run_id, kind, agent_id, file, code, attempts, at, state, WHOLE(inputs), task_grant, labels, WHOLE(error), became, closed_at, note, epoch
FROM dead_letters WHERE run_id = ?

-- name: letters
SELECT run_id, kind, agent_id, file, code, attempts, at, state, WHOLE(inputs), task_grant, labels, WHOLE(error), became, closed_at, note, epoch
FROM dead_letters WHERE (?1 IS NULL OR declared = ?1) AND (?2 IS NULL OR agent_id = ?2) AND (?3 IS NULL OR state = ?3)
ORDER BY at DESC, run_id DESC LIMIT ?4 OFFSET ?5

-- name: letters_of
SELECT run_id, kind, agent_id, file, code, attempts, at, state, WHOLE(inputs), task_grant, labels, WHOLE(error), became, closed_at, note, epoch
FROM dead_letters WHERE declared = ? AND state = ? ORDER BY at DESC, run_id DESC LIMIT ? OFFSET ?

-- name: rows_of_letters
SELECT run_id, run_id, '', at, WHOLE(inputs), task_grant, labels, WHOLE(error), note FROM dead_letters WHERE run_id > ? ORDER BY run_id LIMIT ?

-- name: put_agent
INSERT INTO agents (agent_id, file, source_digest, state, revision, reason, parent, created_at, changed_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (agent_id) DO UPDATE SET file = excluded.file, source_digest = excluded.source_digest, state = excluded.state,
revision = excluded.revision, reason = excluded.reason, parent = excluded.parent,
created_at = excluded.created_at, changed_at = excluded.changed_at
WHERE agents.state = 'Terminated'

-- name: move_agent
UPDATE agents SET state = ?, revision = ?, reason = ?, file = ?, source_digest = ?, changed_at = ?
WHERE agent_id = ? AND revision = ? AND created_at = ?

-- name: get_agent
SELECT agent_id, file, source_digest, state, revision, reason, parent, created_at, changed_at FROM agents
WHERE agent_id = ?

-- name: agents
SELECT agent_id, file, source_digest, state, revision, reason, parent, created_at, changed_at FROM agents
WHERE agent_id > ? ORDER BY agent_id LIMIT ?

-- name: agents_in
SELECT agent_id, file, source_digest, state, revision, reason, parent, created_at, changed_at FROM agents
WHERE state = ? AND agent_id > ? ORDER BY agent_id LIMIT ?

-- name: last_number
SELECT coalesce(max(CAST(substr(agent_id, length(?1) + 2) AS INTEGER)), 0) FROM agents
WHERE agent_id > ?1 || '/' AND agent_id < ?1 || '0' AND substr(agent_id, length(?1) + 2) NOT GLOB '*[^0-9]*'

-- name: count_agents
SELECT state, count(*) FROM agents GROUP BY state

-- name: put_message
INSERT INTO mailbox (message_id, declared, agent_id, sender, body, labels, due_ns, expires_ns, attempts, epoch)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (message_id) DO NOTHING

-- name: get_message
SELECT sequence, message_id, agent_id, sender, WHOLE(body), labels, due_ns, expires_ns, attempts, epoch FROM mailbox WHERE message_id = ?

-- name: next_message
SELECT sequence, message_id, agent_id, sender, WHOLE(body), labels, due_ns, expires_ns, attempts, epoch FROM mailbox
WHERE agent_id = ? AND due_ns = 0 ORDER BY sequence LIMIT 1

-- name: waiting_agents
SELECT sequence, agent_id FROM mailbox WHERE declared = ? AND sequence > ? AND due_ns = 0 ORDER BY sequence LIMIT ?

-- name: ripe_messages
SELECT sequence, message_id, agent_id, sender, WHOLE(body), labels, due_ns, expires_ns, attempts, epoch FROM mailbox
WHERE due_ns > 0 AND due_ns <= ? ORDER BY due_ns, sequence LIMIT ?

-- name: earliest_due
SELECT min(due_ns) FROM mailbox WHERE due_ns > 0

-- name: begin_message
UPDATE mailbox SET attempts = attempts + 1 WHERE message_id = ?

-- name: rest_message
UPDATE mailbox SET attempts = 0 WHERE message_id = ?

-- name: attempts_of
SELECT attempts FROM mailbox WHERE message_id = ?

-- name: drop_message
DELETE FROM mailbox WHERE message_id = ?

-- name: unsealed_messages
SELECT sequence, message_id, agent_id, sender, WHOLE(body), labels, due_ns, expires_ns, attempts, epoch FROM mailbox
WHERE epoch = 0 AND sequence > ? ORDER BY sequence LIMIT ?

-- name: reseal_message
UPDATE mailbox SET body = ?, labels = NULL, epoch = ? WHERE message_id = ? AND epoch = 0

-- name: unsealed_letters
SELECT run_id, kind, agent_id, file, code, attempts, at, state, WHOLE(inputs), task_grant, labels, WHOLE(error), became, closed_at, note, epoch
FROM dead_letters WHERE epoch = 0 AND state = 'open' AND run_id > ? ORDER BY run_id LIMIT ?

-- name: reseal_letter
UPDATE dead_letters SET inputs = ?, task_grant = NULL, labels = NULL, error = ?, epoch = ? WHERE run_id = ? AND epoch = 0 AND state = 'open'

-- name: put_agent_keys
INSERT INTO bus_agents (agent, generation, epoch, signing_id, signing, agreement, wrapped, created_at, destroyed_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (agent, generation) DO NOTHING

-- name: agent_keys
SELECT agent, generation, epoch, signing_id, signing, agreement, wrapped, created_at, destroyed_at FROM bus_agents
WHERE agent = ? ORDER BY generation

-- name: agent_keys_by
SELECT agent, generation, epoch, signing_id, signing, agreement, wrapped, created_at, destroyed_at FROM bus_agents
WHERE signing_id = ?

-- name: all_agent_keys
SELECT agent, generation, epoch, signing_id, signing, agreement, wrapped, created_at, destroyed_at FROM bus_agents
ORDER BY agent, generation

-- name: blank_agent_keys
UPDATE bus_agents SET wrapped = zeroblob(length(wrapped)) WHERE agent = ? AND generation <= ? AND wrapped IS NOT NULL

-- name: destroy_agent_keys
UPDATE bus_agents SET wrapped = NULL, destroyed_at = ? WHERE agent = ? AND generation <= ? AND wrapped IS NOT NULL

-- name: put_epoch
INSERT INTO bus_epochs (epoch, owner, wrapped, begun_at) VALUES (?, ?, ?, ?) ON CONFLICT (epoch) DO NOTHING

-- name: bus_epochs
SELECT epoch, owner, wrapped, begun_at FROM bus_epochs ORDER BY epoch

-- name: last_epoch
SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'bus_epochs'

-- name: least_epoch
SELECT min(ifnull((SELECT min(epoch) FROM mailbox WHERE epoch > 0), 9223372036854775807),
           ifnull((SELECT min(epoch) FROM dead_letters INDEXED BY dead_letters_epoch WHERE state = 'open' AND epoch > 0), 9223372036854775807),
           ifnull((SELECT min(epoch) FROM bus_outbox INDEXED BY bus_outbox_epoch WHERE state IN ('waiting', 'dead') AND epoch > 0), 9223372036854775807))

-- name: blank_epochs
UPDATE bus_epochs SET wrapped = zeroblob(length(wrapped)) WHERE owner < ? AND epoch < ?

-- name: end_epochs
DELETE FROM bus_epochs WHERE owner < ? AND epoch < ?

-- name: forget_seen
DELETE FROM bus_seen WHERE epoch IN (SELECT epoch FROM bus_epochs WHERE owner < ? AND epoch < ?)

-- name: put_group
INSERT INTO bus_groups (topic, epoch, wrapped, begun_at) VALUES (?, ?, ?, ?) ON CONFLICT (topic, epoch) DO NOTHING

-- name: groups
SELECT topic, epoch, wrapped, begun_at FROM bus_groups WHERE topic = ? ORDER BY epoch

-- name: last_groups
SELECT topic, max(epoch) FROM bus_groups GROUP BY topic

-- name: stream_starts
SELECT substr(wire, 1, ?) FROM bus_stream

-- name: blank_groups
UPDATE bus_groups SET wrapped = zeroblob(length(wrapped)) WHERE topic = ? AND epoch < ?

-- name: end_groups
DELETE FROM bus_groups WHERE topic = ? AND epoch < ?

-- name: seen
SELECT highest, gaps FROM bus_seen WHERE sender = ? AND address = ? AND epoch = ?

-- name: put_seen
INSERT INTO bus_seen (sender, address, epoch, highest, gaps) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (sender, address, epoch) DO UPDATE SET highest = excluded.highest, gaps = excluded.gaps

-- name: count_messages
SELECT count(*) FROM (SELECT 1 FROM mailbox WHERE agent_id = ? LIMIT ?)

-- name: rows_of_mailbox
SELECT message_id, message_id, '', '', WHOLE(body), labels FROM mailbox WHERE message_id > ? ORDER BY message_id LIMIT ?

-- name: open_messages
SELECT message_id, 'waiting', WHOLE(body), labels FROM mailbox

-- name: get_budget
SELECT run_id, agent_id, parent, calls_most, tokens_most, money_most, wall_most, cpu_most,
       calls_spent, tokens_spent, money_spent, wall_spent, cpu_spent, calls_held, tokens_held, money_held, wall_held, cpu_held
FROM budgets WHERE run_id = ?

-- name: budgets
SELECT run_id, agent_id, parent, calls_most, tokens_most, money_most, wall_most, cpu_most,
       calls_spent, tokens_spent, money_spent, wall_spent, cpu_spent, calls_held, tokens_held, money_held, wall_held, cpu_held
FROM budgets ORDER BY run_id DESC LIMIT ?

-- name: budgets_of
SELECT run_id, agent_id, parent, calls_most, tokens_most, money_most, wall_most, cpu_most,
       calls_spent, tokens_spent, money_spent, wall_spent, cpu_spent, calls_held, tokens_held, money_held, wall_held, cpu_held
FROM budgets WHERE agent_id = ? ORDER BY run_id DESC LIMIT ?

-- name: put_budget
INSERT INTO budgets (run_id, agent_id, parent, calls_most, tokens_most, money_most, wall_most, cpu_most,
       calls_spent, tokens_spent, money_spent, wall_spent, cpu_spent, calls_held, tokens_held, money_held, wall_held, cpu_held)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET
    calls_most = excluded.calls_most, tokens_most = excluded.tokens_most, money_most = excluded.money_most,
    wall_most = excluded.wall_most, cpu_most = excluded.cpu_most,
    calls_spent = excluded.calls_spent, tokens_spent = excluded.tokens_spent, money_spent = excluded.money_spent,
    wall_spent = excluded.wall_spent, cpu_spent = excluded.cpu_spent,
    calls_held = excluded.calls_held, tokens_held = excluded.tokens_held, money_held = excluded.money_held,
    wall_held = excluded.wall_held, cpu_held = excluded.cpu_held

-- name: get_reservation
SELECT effect_id, run_id, calls, tokens, money, wall, cpu FROM budget_reservations WHERE effect_id = ?

-- name: put_reservation
INSERT INTO budget_reservations (effect_id, run_id, calls, tokens, money, wall, cpu) VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: drop_reservation
DELETE FROM budget_reservations WHERE effect_id = ?

-- name: put_answer
INSERT INTO run_answers (run_id, label) VALUES (?, ?) ON CONFLICT (run_id) DO UPDATE SET label = excluded.label

-- name: answer_label
SELECT label FROM run_answers WHERE run_id = ?

-- name: rows_of_answers
SELECT run_id, run_id, '', '', label FROM run_answers WHERE run_id > ? ORDER BY run_id LIMIT ?

-- name: held_keys
SELECT key_id FROM subject_holds JOIN subject_keys USING (pseudonym)

-- name: compactable_runs
SELECT run_id FROM runs
WHERE run_id > ?1 AND state IN ('finished', 'failed') AND finished_at < ?2 AND inputs <> x''
AND NOT EXISTS (
    SELECT 1 FROM effects WHERE effects.run_id = runs.run_id AND position >= 0
    AND (effects.state = 'dispatched' OR (effects.state = 'unknown' AND effects.error IS NOT ?3))
)
AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE dead_letters.run_id = runs.run_id)
AND NOT EXISTS (SELECT 1 FROM mailbox WHERE message_id = runs.run_id)
AND NOT EXISTS (SELECT 1 FROM occurrences WHERE occurrences.state = 'claimed' AND occurrences.run_id = runs.run_id)
AND NOT EXISTS (
    SELECT 1 FROM run_parents JOIN runs AS above ON above.run_id = parent_run_id
    WHERE run_parents.run_id = runs.run_id AND above.state IN ('running', 'held')
)
ORDER BY run_id LIMIT ?4

-- name: values_of_run
SELECT WHOLE(inputs), WHOLE(output), WHOLE(error), task_grant, labels FROM runs
LEFT JOIN run_grants USING (run_id) LEFT JOIN run_labels USING (run_id) WHERE run_id = ?1
UNION ALL
SELECT arguments_digest, WHOLE(effects.result), WHOLE(effects.error), request, NULL
FROM effects LEFT JOIN requests USING (effect_id) WHERE run_id = ?1 AND position >= 0

-- name: values_of_effect
SELECT arguments_digest, WHOLE(effects.result), WHOLE(effects.error), request
FROM effects LEFT JOIN requests USING (effect_id) WHERE effect_id = ?

-- name: effects_to_remove
SELECT effect_id FROM effects WHERE run_id = ? AND position >= 0 ORDER BY position LIMIT ?

-- name: own_effects
SELECT effect_id FROM effects
WHERE effect_id > ? AND effect_id < ? AND run_id = '' AND state IN ('denied', 'confirmed', 'failed', 'reconciled')
ORDER BY effect_id LIMIT ?

-- name: drop_requests
DELETE FROM requests WHERE effect_id IN (SELECT value FROM json_each(?))

-- name: drop_effects
DELETE FROM effects WHERE effect_id IN (SELECT value FROM json_each(?))

-- name: drop_run_grant
DELETE FROM run_grants WHERE run_id = ?

-- name: drop_run_labels
DELETE FROM run_labels WHERE run_id = ?

-- name: drop_run_usage
DELETE FROM run_usage WHERE run_id = ?

-- name: drop_run_answer
DELETE FROM run_answers WHERE run_id = ?

-- name: empty_run
UPDATE runs SET inputs = x'', output = NULL, error = NULL WHERE run_id = ?

-- name: waiting_messages
SELECT count(*) FROM (SELECT 1 FROM mailbox INDEXED BY mailbox_declared WHERE due_ns = 0 LIMIT ?)

-- name: waiting_later
SELECT count(*) FROM (SELECT 1 FROM mailbox INDEXED BY mailbox_later WHERE due_ns > 0 LIMIT ?)

-- name: waiting_in_doubt
SELECT count(*) FROM (SELECT 1 FROM effects INDEXED BY effects_open WHERE state IN ('dispatched', 'unknown') AND state = 'unknown' LIMIT ?)

-- name: waiting_dead_letters
SELECT count(*) FROM (SELECT 1 FROM dead_letters INDEXED BY dead_letters_open WHERE state = 'open' LIMIT ?)

-- name: waiting_approvals
SELECT count(*) FROM (SELECT 1 FROM approvals INDEXED BY approvals_open WHERE state IN ('waiting', 'granted') AND state = 'waiting' LIMIT ?)

-- name: put_sent
INSERT INTO bus_outbox (message_id, sender, recipient, wire, state, attempts, due_ns, expires_ns, code, changed_ns, epoch)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: count_waiting_sent
SELECT count(*) FROM (SELECT 1 FROM bus_outbox INDEXED BY bus_outbox_waiting WHERE recipient = ? AND state = 'waiting' LIMIT ?)

-- name: find_sent
SELECT message_id, sender, recipient, wire, state, attempts, due_ns, expires_ns, code, changed_ns, epoch, position FROM bus_outbox
WHERE message_id = ?

-- name: waiting_sent
SELECT message_id, sender, recipient, wire, state, attempts, due_ns, expires_ns, code, changed_ns, epoch, position
FROM bus_outbox INDEXED BY bus_outbox_waiting
WHERE recipient = ? AND position > ? AND state = 'waiting' ORDER BY position LIMIT ?

-- name: awaited_sent
SELECT recipient FROM bus_outbox INDEXED BY bus_outbox_waiting
WHERE recipient = ?1 AND state = 'waiting' AND (expires_ns = 0 OR expires_ns > ?2)
UNION ALL
SELECT recipient FROM bus_outbox INDEXED BY bus_outbox_waiting
WHERE recipient > ?1 || '/' AND recipient < ?1 || '0' AND state = 'waiting' AND (expires_ns = 0 OR expires_ns > ?2)
LIMIT 1

-- name: all_sent
SELECT message_id, sender, recipient, wire, state, attempts, due_ns, expires_ns, code, changed_ns, epoch, position FROM bus_outbox
WHERE state = ?1 AND position > ?2 AND (?4 = '' OR recipient = ?4) ORDER BY position LIMIT ?3

-- name: dead_sent
SELECT message_id, sender, recipient, code, attempts, changed_ns, length(wire) FROM bus_outbox
WHERE position IN (SELECT position FROM bus_outbox WHERE state = 'dead' ORDER BY changed_ns DESC, position DESC LIMIT ? OFFSET ?)
ORDER BY changed_ns DESC, position DESC

-- name: dead_sent_to
SELECT message_id, sender, recipient, code, attempts, changed_ns, length(wire) FROM bus_outbox
WHERE position IN (
    SELECT position FROM (
        SELECT position, changed_ns FROM bus_outbox WHERE state = 'dead' AND recipient = ?1
        UNION ALL
        SELECT position, changed_ns FROM bus_outbox WHERE state = 'dead' AND recipient > ?1 || '/' AND recipient < ?1 || '0'
    ) ORDER BY changed_ns DESC, position DESC LIMIT ?2 OFFSET ?3
)
ORDER BY changed_ns DESC, position DESC

-- name: move_sent
UPDATE bus_outbox SET wire = ?, state = ?, attempts = ?, due_ns = ?, expires_ns = ?, code = ?, changed_ns = ?
WHERE message_id = ? AND state = ?

-- name: trim_sent
DELETE FROM bus_outbox WHERE state IN ('received', 'dropped') AND changed_ns < ?

-- name: append_stream
INSERT INTO bus_stream (position, subject, message_id, wire) VALUES (?, ?, ?, ?)

-- name: stream_rows
SELECT position, subject, message_id, wire FROM bus_stream WHERE position > ? ORDER BY position LIMIT ?

-- name: trim_stream
DELETE FROM bus_stream WHERE position <= ?

-- name: stream_cursors
SELECT name, subject, position FROM bus_cursors ORDER BY name

-- name: put_cursor
INSERT INTO bus_cursors (name, subject, position) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET subject = excluded.subject, position = excluded.position

-- name: drop_cursor
DELETE FROM bus_cursors WHERE name = ?

-- name: put_memory
INSERT INTO memories (copy, id, space, kind, form, shared, level, at_ms, expires_ms, importance, half_life, tokens, times, digest, meaning, body, words)
VALUES ('', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: memory_words_in
INSERT OR IGNORE INTO memory_words (space, word, number) SELECT ?1, value, ?2 FROM json_each(?3)

-- name: memory_tags_in
INSERT OR IGNORE INTO memory_tags (space, tag, number) SELECT ?1, value, ?2 FROM json_each(?3)

-- name: memory_words_out
DELETE FROM memory_words WHERE space = ?1 AND number = ?2 AND word IN (SELECT key FROM json_each(?3))

-- name: memory_tags_out
DELETE FROM memory_tags WHERE space = ?1 AND number = ?2 AND tag IN (SELECT value FROM json_each(?3))

-- name: memory_level_more
INSERT INTO memory_levels (space, level, items) VALUES (?, ?, 1) ON CONFLICT (space, level) DO UPDATE SET items = items + 1

-- name: memory_level_less
UPDATE memory_levels SET items = items - 1 WHERE space = ? AND level = ?

-- name: memory_levels_empty
DELETE FROM memory_levels WHERE space = ? AND items <= 0

-- name: memory_levels
SELECT level, items FROM memory_levels WHERE space = ?

-- name: memory_latest
SELECT ifnull(max(at_ms), 0) FROM memories WHERE space = ? AND copy = ''

-- name: memory_same
SELECT id, space, kind, form, shared, level, at_ms, expires_ms, importance, half_life, tokens, times, digest, meaning, body, words, number
FROM memories WHERE space = ? AND kind = ? AND digest = ? AND copy = '' ORDER BY number DESC LIMIT 1

-- name: memories_of
SELECT id, space, kind, form, shared, level, at_ms, expires_ms, importance, half_life, tokens, times, digest, meaning, body, words, number
FROM memories WHERE +space = ?1 AND copy = '' AND id IN (SELECT value FROM json_each(?2))

-- name: memory_rows
SELECT number, copy, space, level, words, body FROM memories WHERE id = ?

-- name: memory_rows_due
SELECT number, copy FROM memories WHERE id = ?1 AND (at_ms < ?3 OR expires_ms <= ?2)

-- name: drop_memory_row
DELETE FROM memories WHERE number = ?

-- name: drop_memories
DELETE FROM memories WHERE id = ?

-- name: memory_gone
INSERT OR IGNORE INTO memory_gone (id) VALUES (?)

-- name: memories_gone
SELECT id FROM memory_gone ORDER BY id LIMIT ?

-- name: memory_forgotten
DELETE FROM memory_gone WHERE id = ?

-- name: memories_ended
SELECT id, expires_ms, number FROM memories INDEXED BY memories_end
WHERE expires_ms <= ?1 AND (expires_ms, number) > (?2, ?3) ORDER BY expires_ms, number LIMIT ?4

-- name: memories_old
SELECT id, at_ms, number FROM memories INDEXED BY memories_age
WHERE at_ms < ?1 AND (at_ms, number) > (?2, ?3) ORDER BY at_ms, number LIMIT ?4

-- name: memories_old_in
SELECT id, at_ms, number FROM memories INDEXED BY memories_space_age
WHERE space = ?5 AND at_ms < ?1 AND (at_ms, number) > (?2, ?3) ORDER BY at_ms, number LIMIT ?4

-- name: memory_space_old
WITH RECURSIVE s (space) AS (
    SELECT ?1
    UNION ALL
    SELECT (
        SELECT min(space) FROM (
            SELECT min(space) AS space FROM memory_levels WHERE space > s.space AND space < ?2
            UNION ALL SELECT min(space) FROM memory_copies WHERE space > s.space AND space < ?2
        )
    )
    FROM s WHERE s.space IS NOT NULL AND (s.space = ?1 OR NOT EXISTS (
        SELECT 1 FROM memories INDEXED BY memories_space_age WHERE space = s.space AND at_ms < ?3
    ))
)
SELECT max(space) FROM s WHERE space > ?1 AND EXISTS (
    SELECT 1 FROM memories INDEXED BY memories_space_age WHERE space = s.space AND at_ms < ?3
)

-- name: memory_size
SELECT count(*), ifnull(sum(length(body)), 0) FROM memories WHERE space = ? AND copy = ''

-- name: memory_ids
SELECT id FROM memories WHERE space = ? AND copy = ''

-- name: memories_surplus
SELECT id FROM memories WHERE space = ? AND kind = ? AND copy = '' ORDER BY at_ms DESC, number DESC LIMIT ? OFFSET ?

-- name: memory_copies_surplus
SELECT id FROM memory_copies WHERE space = ? ORDER BY at_ms DESC, id DESC LIMIT ? OFFSET ?

-- name: note_memory_surplus
INSERT OR IGNORE INTO memory_surplus (space, kind) VALUES (?, ?)

-- name: memory_surplus_over
DELETE FROM memory_surplus WHERE space = ? AND kind = ?

-- name: memory_surplus_noted
SELECT space, kind FROM memory_surplus ORDER BY space, kind

-- name: put_memory_terms
INSERT INTO memory_terms (agent, retention_days) VALUES (?, ?) ON CONFLICT (agent) DO UPDATE SET retention_days = excluded.retention_days

-- name: drop_memory_terms
DELETE FROM memory_terms WHERE agent = ?

-- name: memory_terms
SELECT agent, retention_days FROM memory_terms

-- name: memory_keys
SELECT m.id, substr(m.body, 1, instr(m.body, x'5d')) FROM json_each(?) j JOIN memories m ON m.id = j.value
WHERE substr(m.body, 1, 1) = x'01'

-- name: memory_spaces
SELECT DISTINCT space FROM memory_levels ORDER BY space

-- name: memories_due
SELECT id, space, kind, form, shared, level, at_ms, expires_ms, importance, half_life, tokens, times, digest, meaning, body, words, number
FROM memories WHERE copy = '' AND meaning = 1 AND number > ? ORDER BY number LIMIT ?

-- name: memory_meant
UPDATE memories SET meaning = 2 WHERE id = ? AND meaning = 1

-- name: memories_with_meaning
SELECT number, id, meaning FROM memories WHERE copy = '' AND meaning != 0 AND number > ? ORDER BY number LIMIT ?

-- name: memory_meaning
UPDATE memories SET meaning = ?2 WHERE id = ?1 AND copy = '' AND meaning = 2

-- name: memory_gone_meanwhile
INSERT OR IGNORE INTO memory_gone (id) SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM memories WHERE id = ?1 AND copy = '')

-- name: memory_word_count
SELECT count(*) FROM (SELECT 1 FROM memory_words WHERE space = ? AND word = ? LIMIT ?)

-- name: put_memory_copy
INSERT INTO memory_copies (id, space, at_ms) VALUES (?, ?, ?)

-- name: copy_memories
INSERT INTO memories (copy, id, space, kind, form, shared, level, at_ms, expires_ms, importance, half_life, tokens, times, digest, meaning, body, words)
SELECT ?1, id, space, kind, form, shared, level, at_ms, expires_ms, importance, half_life, tokens, times, digest, meaning, body, words
FROM memories WHERE space = ?2 AND copy = '' ORDER BY number

-- name: memory_copies
SELECT id, space, at_ms, (SELECT count(*) FROM memories WHERE copy = memory_copies.id) FROM memory_copies WHERE space = ?
ORDER BY at_ms DESC, id DESC

-- name: memory_copy
SELECT id, space, kind, form, shared, level, at_ms, expires_ms, importance, half_life, tokens, times, digest, meaning, body, words, number
FROM memories WHERE copy = ? ORDER BY number

-- name: memories_in_copy_alone
SELECT id, space, kind, form, shared, level, at_ms, expires_ms, importance, half_life, tokens, times, digest, meaning, body, words, number
FROM memories m WHERE copy = ? AND copy != '' AND number > ? AND NOT EXISTS (SELECT 1 FROM memories o WHERE o.id = m.id AND o.copy = '')
ORDER BY number LIMIT ?

-- name: memories_beside_copy
SELECT id FROM memories WHERE space = ?1 AND copy = '' AND id NOT IN (SELECT id FROM memories WHERE copy = ?2)

-- name: memories_only_in_copy
SELECT id FROM memories m WHERE copy = ?1 AND copy != '' AND NOT EXISTS (SELECT 1 FROM memories o WHERE o.id = m.id AND o.copy != ?1)

-- name: drop_memory_copy
DELETE FROM memory_copies WHERE id = ? AND space = ?

-- name: drop_copied_memories
DELETE FROM memories WHERE copy = ? AND copy != ''

-- name: rows_of_memories
SELECT id, '', '', '', body FROM memories WHERE id > ? GROUP BY id ORDER BY id LIMIT ?

-- name: put_access
INSERT OR IGNORE INTO knowledge_access (collection, owner, classification, purpose) VALUES (?, ?, ?, ?)

-- name: get_access
SELECT access_id FROM knowledge_access WHERE collection = ? AND owner = ? AND classification = ? AND purpose = ?

-- name: put_document
INSERT OR REPLACE INTO knowledge_documents
(document_id, collection, source, kind, version, access_id, importance, modified_ns, added_ns, size_bytes, chunks, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: put_chunk
INSERT OR IGNORE INTO knowledge_chunks (chunk_id, document_id, ordinal, start, stop, worded) VALUES (?, ?, ?, ?, ?, ?)

-- name: chunk_rows
SELECT chunk_id, number, worded FROM knowledge_chunks WHERE document_id = ?

-- name: count_chunks
SELECT count(*) FROM knowledge_chunks WHERE document_id = ?

-- name: note_document
INSERT OR REPLACE INTO knowledge_pending (collection, document_id)
SELECT collection, document_id FROM knowledge_documents WHERE document_id = ?

-- name: move_chunks
UPDATE knowledge_chunks SET document_id = ?1 WHERE document_id = ?2

-- name: move_some_chunks
UPDATE knowledge_chunks SET document_id = ?1 WHERE number IN (SELECT value FROM json_each(?2))

-- name: chunks_beside
SELECT number FROM knowledge_chunks
WHERE document_id IN (SELECT value || '+' FROM json_each(?1) UNION ALL SELECT value || '-' FROM json_each(?1)) LIMIT ?2

-- name: any_worded
SELECT EXISTS (SELECT 1 FROM knowledge_chunks WHERE worded AND number IN (SELECT value FROM json_each(?)))

-- name: drop_words
DELETE FROM knowledge_words WHERE rowid IN (
    SELECT number FROM knowledge_chunks WHERE worded AND number IN (SELECT value FROM json_each(?))
)

-- name: drop_chunks
DELETE FROM knowledge_chunks WHERE number IN (SELECT value FROM json_each(?))

-- name: put_words
INSERT INTO knowledge_words (rowid, headings, text) VALUES (?, ?, ?)

-- name: remove_documents
DELETE FROM knowledge_documents WHERE document_id IN (SELECT value FROM json_each(?))

-- name: scrub_words
INSERT INTO knowledge_words (knowledge_words, rank) VALUES ('merge', ?)

-- name: documents
SELECT d.document_id, d.collection, d.source, d.kind, d.version, d.access_id, d.importance, d.modified_ns, d.added_ns,
       d.size_bytes, d.chunks, a.owner, a.classification, a.purpose
FROM knowledge_documents AS d JOIN knowledge_access AS a USING (access_id)
WHERE (?1 IS NULL OR d.collection = ?1) AND (d.collection, d.source) > (?2, ?3)
AND (?5 IS NULL OR d.access_id IN (SELECT value FROM json_each(?5)))
ORDER BY d.collection, d.source LIMIT ?4

-- name: get_documents
SELECT d.document_id, d.collection, d.source, d.kind, d.version, d.access_id, d.importance, d.modified_ns, d.added_ns,
       d.size_bytes, d.chunks, a.owner, a.classification, a.purpose, iif(?2, d.body, x'')
FROM knowledge_documents AS d JOIN knowledge_access AS a USING (access_id)
WHERE d.document_id IN (SELECT value FROM json_each(?1))

-- name: documents_before
SELECT d.document_id, d.collection, d.source, d.kind, d.version, d.access_id, d.importance, d.modified_ns, d.added_ns,
       d.size_bytes, d.chunks, a.owner, a.classification, a.purpose
FROM knowledge_documents AS d JOIN knowledge_access AS a USING (access_id)
WHERE d.added_ns < ? ORDER BY d.added_ns LIMIT ?

-- name: versions
SELECT source, document_id, version FROM knowledge_documents
WHERE collection = ?1 AND source IN (SELECT value FROM json_each(?2))

-- name: chunk_ids
SELECT c.chunk_id, c.document_id FROM knowledge_chunks AS c JOIN knowledge_documents AS d USING (document_id)
WHERE d.collection = ?1 AND c.chunk_id > ?2 AND (?4 IS NULL OR d.access_id IN (SELECT value FROM json_each(?4)))
ORDER BY c.chunk_id LIMIT ?3

-- name: chunk_ids_of
SELECT chunk_id FROM knowledge_chunks WHERE document_id IN (SELECT value FROM json_each(?))

-- name: chunks_of
SELECT c.chunk_id, c.ordinal, c.start, c.stop, w.headings, w.text
FROM knowledge_chunks AS c LEFT JOIN knowledge_words AS w ON c.worded AND w.rowid = c.number
WHERE c.document_id = ? ORDER BY c.ordinal

-- name: put_pending
INSERT OR REPLACE INTO knowledge_pending (collection, document_id) SELECT ?1, value FROM json_each(?2)

-- name: clear_pending
DELETE FROM knowledge_pending WHERE document_id IN (SELECT value FROM json_each(?))

-- name: pending
SELECT document_id FROM knowledge_pending WHERE ?1 IS NULL OR collection = ?1 ORDER BY document_id

-- name: unfinished
SELECT collection FROM knowledge_pending UNION
SELECT collection FROM (SELECT min(collection) AS collection FROM knowledge_access)
WHERE collection IS NOT NULL AND EXISTS (SELECT 1 FROM meta WHERE key = ?)

-- name: get_folders
SELECT name, root FROM knowledge_folders WHERE collection = ?1 AND name IN (SELECT value FROM json_each(?2)) UNION ALL
SELECT name, root FROM knowledge_folders WHERE collection = ?1 AND name > ?3 AND name < ?4

-- name: put_folder
INSERT OR REPLACE INTO knowledge_folders (collection, name, root) VALUES (?, ?, ?)

-- name: collection_stats
SELECT d.collection, count(*), sum(d.chunks),
       sum(EXISTS (SELECT 1 FROM knowledge_chunks AS c WHERE c.document_id = d.document_id AND c.ordinal = 0 AND NOT c.worded)),
       sum(d.size_bytes), max(d.modified_ns)
FROM knowledge_documents AS d
WHERE ?1 IS NULL OR d.access_id IN (SELECT value FROM json_each(?1))
GROUP BY d.collection ORDER BY d.collection

-- name: collections
SELECT DISTINCT collection FROM knowledge_access AS a WHERE EXISTS (
    SELECT 1 FROM knowledge_documents AS d WHERE d.collection = a.collection AND d.access_id = a.access_id
) ORDER BY collection

-- name: former_collections
SELECT DISTINCT collection FROM knowledge_access ORDER BY collection LIMIT ?

-- name: accesses
SELECT access_id, owner, classification, purpose FROM knowledge_access AS a
WHERE collection = ? AND EXISTS (
    SELECT 1 FROM knowledge_documents AS d WHERE d.collection = a.collection AND d.access_id = a.access_id
)

-- name: open_terms
CREATE VIRTUAL TABLE IF NOT EXISTS temp.knowledge_terms USING fts5vocab(main, knowledge_words, instance)

-- name: term_marks
SELECT group_concat(mark), count(*)
FROM (SELECT doc * 2 + (col = 'headings') AS mark FROM temp.knowledge_terms WHERE term = ? LIMIT ?)

-- name: term_places
SELECT group_concat(mark * 1048576 + place), count(*)
FROM (SELECT doc * 2 + (col = 'headings') AS mark, min(offset, 1048575) AS place FROM temp.knowledge_terms WHERE term = ? LIMIT ?)

-- name: chunks_with
SELECT group_concat(rowid) FROM knowledge_words WHERE knowledge_words MATCH ?

-- name: readable_chunks
SELECT group_concat(c.number), group_concat(c.stop - c.start), group_concat(
       (?3 = '[]' OR EXISTS (SELECT 1 FROM json_each(?3) WHERE d.source GLOB value))
       AND (?4 = '[]' OR d.kind IN (SELECT value FROM json_each(?4))) AND d.modified_ns >= ?5 AND d.modified_ns < ?6)
FROM json_each(?1) AS j CROSS JOIN knowledge_chunks AS c ON c.number = j.value
CROSS JOIN knowledge_documents AS d USING (document_id)
WHERE d.access_id IN (SELECT value FROM json_each(?2))

-- name: ids_of_chunks
SELECT number, chunk_id FROM knowledge_chunks WHERE number IN (SELECT value FROM json_each(?))

-- name: readable_size
SELECT ifnull(sum(chunks), 0) FROM knowledge_documents WHERE access_id IN (SELECT value FROM json_each(?))

-- name: found
SELECT d.document_id, d.collection, d.source, d.kind, d.version, d.access_id, d.importance, d.modified_ns, d.added_ns,
       d.size_bytes, d.chunks, a.owner, a.classification, a.purpose,
       c.chunk_id, c.ordinal, c.start, c.stop, w.headings, w.text
FROM knowledge_chunks AS c JOIN knowledge_documents AS d USING (document_id) JOIN knowledge_access AS a USING (access_id)
LEFT JOIN knowledge_words AS w ON c.worded AND w.rowid = c.number
WHERE c.chunk_id IN (SELECT value FROM json_each(?1)) AND d.access_id IN (SELECT value FROM json_each(?2))
AND (?3 = '[]' OR EXISTS (SELECT 1 FROM json_each(?3) WHERE d.source GLOB value))
AND (?4 = '[]' OR d.kind IN (SELECT value FROM json_each(?4))) AND d.modified_ns >= ?5 AND d.modified_ns < ?6

-- name: narrowed
SELECT d.document_id FROM knowledge_documents AS d
WHERE d.access_id IN (SELECT value FROM json_each(?1))
AND (?2 = '[]' OR EXISTS (SELECT 1 FROM json_each(?2) WHERE d.source GLOB value))
AND (?3 = '[]' OR d.kind IN (SELECT value FROM json_each(?3))) AND d.modified_ns >= ?4 AND d.modified_ns < ?5
ORDER BY d.document_id LIMIT ?6

-- name: rows_of_knowledge
SELECT document_id, '', '', strftime('%Y-%m-%dT%H:%M:%fZ', added_ns / 1000000000.0, 'unixepoch'), body
FROM knowledge_documents WHERE document_id > ? ORDER BY document_id LIMIT ?
