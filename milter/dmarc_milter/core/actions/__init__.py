"""From an Evaluation to what the MTA is asked to do."""
