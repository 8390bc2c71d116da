"""What agents remember: working, short-term, long-term and shared memory, each behind the gate.

`kinds` says what an item and a question are, `words` and `ranking` how items are found and ordered, `matching` what a
question means; all of them are pure. `sealing` keeps what a label asks to be sealed, `cache` what was read lately,
`reading` which labels a reader may see, and `memory` is the room itself.
"""
