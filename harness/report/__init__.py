"""Results of a run: one stream of events, and JSON, JUnit, HTML and terminal as views of it (design section 11)."""
