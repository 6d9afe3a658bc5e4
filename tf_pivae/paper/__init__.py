"""The paper's tables: its numbers beside ours."""
