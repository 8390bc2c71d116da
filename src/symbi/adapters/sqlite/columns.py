"""What each column of the store may hold of people. A column that is not here fails a test.

A sealed column is sealed where its row is about somebody (`symbi.guard.confidential`); what is about nobody stands in it
in plain text, or, with `[audit] confidential = "all"`, under a key of its agent.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Holds(StrEnum):
    """What a column may hold of a data subject."""

    SEALED = "sealed"
    """Values, under the keys of whom they are about."""
    DIGEST = "digest"
    """A digest that nobody can guess values by: keyed, of sealed bytes, or of facts with a random part."""
    PSEUDONYM = "pseudonym"
    """What stands for a subject: an HMAC under a key derived from the master."""
    PAYLOAD = "payload"
    """What sealed columns refer to: sealed where theirs is about somebody, and gone with the last of them."""
    KEY = "key"
    """A key, wrapped by the master; or whose it is, sealed by it, which goes with it."""
    AMOUNT = "amount"
    """Numbers that policies count, by effect and by who is counted; nothing that says whom they are about."""
    WORDS = "words of open documents"
    """Words of documents and of what agents remember, that are about nobody, and neither confidential nor secret; the others stand in no such column."""
    NOTHING = "no personal data"
    """Ids, times, states, and words of the operator: names of agents, tools, policies and registered persons.

    Among them `bus_outbox.wire` and `bus_stream.wire`: sealed messages, about nobody. The bus refuses to keep one that
    is about a data subject (`symbi.bus`); agents send those to one another, and they lie in `mailbox`.
    """


_SAID: Final[Mapping[Holds, str]] = {
    Holds.SEALED: """
        run_answers.label events.record effects.result effects.error runs.inputs runs.output runs.error run_grants.task_grant
        run_labels.labels requests.request approvals.facts approvals.shown approvals.votes subject_holds.note
        dead_letters.inputs dead_letters.task_grant dead_letters.labels dead_letters.error dead_letters.note
        mailbox.body mailbox.labels memories.body
        mailbox.body mailbox.labels knowledge_documents.body
    """,
    Holds.DIGEST: """
        effects.arguments_digest requests.digest approvals.digest approvals.place
        checkpoints.note tiles.hashes segments.chain_hash segments.root segments.digest anchors.token
        payloads.digest memories.digest knowledge_documents.version
    """,
    Holds.WORDS: """
        knowledge_words.headings knowledge_words.text knowledge_words_data.id knowledge_words_data.block
        knowledge_words_idx.segid knowledge_words_idx.term knowledge_words_idx.pgno knowledge_words_content.id
        knowledge_words_content.c0 knowledge_words_content.c1 knowledge_words_docsize.id knowledge_words_docsize.sz
        knowledge_words_config.k knowledge_words_config.v memories.words memory_words.word memory_tags.tag
    """,
    Holds.PAYLOAD: "payloads.bytes",
    Holds.PSEUDONYM: "subject_keys.pseudonym subject_holds.pseudonym erasures.pseudonym",
    Holds.KEY: "subject_keys.wrapped subject_keys.name bus_agents.wrapped bus_epochs.wrapped bus_groups.wrapped",
    Holds.AMOUNT: """
        tallies.total tally_entries.amount budgets.calls_most budgets.tokens_most budgets.money_most
        budgets.wall_most budgets.cpu_most budgets.calls_spent budgets.tokens_spent budgets.money_spent
        budgets.wall_spent budgets.cpu_spent budgets.calls_held budgets.tokens_held budgets.money_held
        budgets.wall_held budgets.cpu_held budget_reservations.calls budget_reservations.tokens budget_reservations.money
        budget_reservations.wall budget_reservations.cpu
    """,
    Holds.NOTHING: """
        meta.key meta.value events.sequence events.chain_hash head.id head.record
        effects.effect_id effects.run_id effects.position effects.agent_id effects.action effects.resource
        effects.recovery effects.policy_version effects.decision effects.label effects.epoch effects.attempt effects.state
        runs.run_id runs.agent_id runs.file runs.source_digest runs.state runs.started_at runs.finished_at
        pins.tool pins.key_fingerprint pins.digest pins.form pins.definition pins.pinned_at pins.state
        reviews.kind reviews.name reviews.state reviews.digest reviews.definition reviews.reason reviews.since
        requests.effect_id policy_sets.version policy_sets.text
        tallies.counter tallies.scope tallies.latest_ns
        tally_entries.counter tally_entries.scope tally_entries.at_ns tally_entries.effect_id tally_entries.windowed
        run_usage.run_id run_usage.started_ns run_usage.effects run_usage.denied run_usage.calls
        run_grants.run_id run_labels.run_id
        approvals.approval_id approvals.run_id approvals.position approvals.agent_id approvals.state approvals.created_at
        approvals.expires_at approvals.revision
        subject_keys.key_id subject_keys.created_at subject_keys.destroyed_at subject_holds.held_at
        erasures.state erasures.facts erasures.at
        events.agent_id events.run_id events.event_type events.verdict event_policies.policy event_policies.sequence
        checkpoints.size tiles.level tiles.number segments.first segments.last segments.folder segments.last_at
        segments.keep_until segments.sealed_at segments.removed_at anchors.size anchors.authority anchors.time
        schedules.schedule schedules.since_ns occurrences.schedule occurrences.at_ns occurrences.run_id occurrences.state
        occurrences.reason payloads.uses
        run_answers.run_id run_parents.run_id run_parents.parent_run_id run_parents.root_run_id run_parents.depth
        dead_letters.run_id dead_letters.kind dead_letters.agent_id dead_letters.declared dead_letters.file dead_letters.code
        dead_letters.attempts dead_letters.at dead_letters.state dead_letters.became dead_letters.closed_at
        agents.agent_id agents.file agents.source_digest agents.state agents.revision agents.reason agents.parent
        agents.created_at agents.changed_at
        mailbox.sequence mailbox.message_id mailbox.declared mailbox.agent_id mailbox.sender mailbox.due_ns
        mailbox.expires_ns mailbox.attempts mailbox.epoch dead_letters.epoch
        bus_agents.agent bus_agents.generation bus_agents.epoch bus_agents.signing_id bus_agents.signing bus_agents.agreement
        bus_agents.created_at bus_agents.destroyed_at bus_epochs.epoch bus_epochs.owner bus_epochs.begun_at
        bus_groups.topic bus_groups.epoch bus_groups.begun_at bus_seen.sender bus_seen.address bus_seen.epoch bus_seen.highest
        bus_seen.gaps
        budgets.run_id budgets.agent_id budgets.parent budget_reservations.effect_id budget_reservations.run_id
        bus_outbox.position bus_outbox.message_id bus_outbox.sender bus_outbox.recipient bus_outbox.wire bus_outbox.state
        bus_outbox.attempts bus_outbox.due_ns bus_outbox.expires_ns bus_outbox.code bus_outbox.changed_ns bus_outbox.epoch
        bus_stream.position bus_stream.subject bus_stream.message_id bus_stream.wire
        bus_cursors.name bus_cursors.subject bus_cursors.position
        memories.number memories.copy memories.id memories.space memories.kind memories.form memories.shared memories.level
        memories.at_ms memories.expires_ms memories.importance memories.half_life memories.tokens memories.times
        memories.meaning memory_words.space memory_words.number memory_tags.space memory_tags.number
        memory_levels.space memory_levels.level memory_levels.items memory_gone.id
        memory_copies.id memory_copies.space memory_copies.at_ms
        memory_surplus.space memory_surplus.kind memory_terms.agent memory_terms.retention_days
        knowledge_access.access_id knowledge_access.collection knowledge_access.owner knowledge_access.classification
        knowledge_access.purpose knowledge_documents.document_id knowledge_documents.collection knowledge_documents.source
        knowledge_documents.kind knowledge_documents.access_id knowledge_documents.importance knowledge_documents.modified_ns
        knowledge_documents.added_ns knowledge_documents.size_bytes knowledge_documents.chunks
        knowledge_chunks.number knowledge_chunks.chunk_id knowledge_chunks.document_id knowledge_chunks.ordinal
        knowledge_chunks.start knowledge_chunks.stop knowledge_chunks.worded
        knowledge_pending.document_id knowledge_pending.collection
        knowledge_folders.collection knowledge_folders.name knowledge_folders.root
    """,
}

COLUMNS: Final[Mapping[str, Holds]] = MappingProxyType(
    {column: holds for holds, columns in _SAID.items() for column in columns.split()}
)
"""What each `table.column` may hold."""
