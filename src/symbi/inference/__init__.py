"""What models compute for agents: texts become vectors."""
