"""SPF (RFC 7208): pyspf fenced and fed."""
