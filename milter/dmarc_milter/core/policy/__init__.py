"""From a DMARC result to a verdict: published policy, local rules, monitor mode."""
