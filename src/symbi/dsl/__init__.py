"""The agent language: text to syntax tree to AgentSpec and Cedar."""
