"""The bus: messages between agents, sealed and signed, each let through by the gate."""
