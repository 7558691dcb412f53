"""Reports on their way: built, sent, bounced."""
