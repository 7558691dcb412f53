"""What this program knows about mail and the RFCs. Pure: DNS, time and randomness are arguments."""
