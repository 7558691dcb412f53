"""Postfix's and Sendmail's own configuration: read, reviewed, edited reversibly."""
