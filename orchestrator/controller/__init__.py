"""The orchestrator: look, decide, act."""
