"""Strategies for whole inputs: almost right fields, records, chains and sessions, to be taken apart
by Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from fuzz.through_session import pack

WHITE = st.sampled_from([b"", b" ", b"\t", b"\r\n ", b"  "])
DOMAINS = st.sampled_from(
    [
        b"legit.example",
        b"attack.example",
        b"LEGIT.example.",
        b"sub.legit.example",
        "straße.example".encode(),
        b"a..b",
        b"x",
    ]
)
ATOMS = st.sampled_from(
    [
        b"a",
        b"admin",
        b'"a b"',
        b'"a\\"@b"',
        b"a.b",
        "用户".encode(),
        b"=?utf-8?q?a=40b?=",
        b"(c)",
        b"",
    ]
)
ADDRESSES = st.builds(
    lambda local, at, host: local + at + host,
    ATOMS,
    st.sampled_from([b"@", b"@", b"@@", b""]),
    DOMAINS,
)
MAILBOXES = st.builds(
    lambda name, left, address, right: name + left + address + right,
    st.sampled_from([b"", b"Doe, John ", b'"Doe" ', b"J. Doe ", b"a@attack.example "]),
    st.sampled_from([b"<", b"<", b"", b"<@x.example:", b"<<"]),
    ADDRESSES,
    st.sampled_from([b">", b">", b"", b"> x", b">>"]),
)
FROM_VALUES = st.builds(
    lambda start, parts, mark: start + mark.join(parts),
    WHITE,
    st.lists(MAILBOXES, max_size=4),
    st.sampled_from([b", ", b",", b";", b" "]),
)


def tag_lists(names: list[bytes], values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """name=value; ... with white space where it may and may not be."""
    tag = st.builds(
        lambda name, before, after, value: name + before + b"=" + after + value,
        st.sampled_from(names),
        WHITE,
        WHITE,
        values,
    )
    return st.builds(
        lambda parts, mark, end: mark.join(parts) + end,
        st.lists(tag, max_size=10),
        st.sampled_from([b";", b"; ", b" ;\r\n\t", b";;"]),
        WHITE,
    )


VALUES = st.sampled_from(
    [
        b"1",
        b"DMARC1",
        b"DKIM1",
        b"reject",
        b"none",
        b"r",
        b"y",
        b"rsa-sha256",
        b"relaxed/relaxed",
        b"from:to",
        b"AAAA",
        b"legit.example",
        b"sel",
        b"50",
        b"-1",
        b"9" * 40,
    ]
)
VALUES |= st.binary(max_size=12)
DKIM_FIELDS = tag_lists(
    [b"v", b"a", b"b", b"bh", b"c", b"d", b"h", b"i", b"l", b"q", b"s", b"t", b"x", b"cv"], VALUES
)
URIS = st.builds(
    lambda scheme, address, size: scheme + address + size,
    st.sampled_from([b"mailto:", b"MAILTO:", b"https://", b""]),
    ADDRESSES,
    st.sampled_from([b"", b"!10m", b"!", b"?cc=x", b"%0d%0a"]),
)
DMARC_RECORDS = st.builds(
    lambda version, rest: version + rest,
    st.sampled_from([b"v=DMARC1; ", b"v=DMARC1;", b"v = DMARC1 ;", b"v=dmarc1;", b""]),
    tag_lists(
        [
            b"p",
            b"sp",
            b"np",
            b"adkim",
            b"aspf",
            b"pct",
            b"t",
            b"psd",
            b"fo",
            b"rua",
            b"ruf",
            b"ri",
            b"rf",
        ],
        VALUES | URIS,
    ),
)
RESULTS = st.builds(
    lambda start, name, rest: start + name + b"; " + rest,
    st.sampled_from([b" ", b"", b" (c) ", b"\r\n\t"]),
    st.sampled_from(
        [b"mx.example.com", b'"mx.example.com"', b"MX.example.com 1", b"other.example", b""]
    ),
    tag_lists(
        [b"dmarc", b"spf", b"dkim", b"arc", b"header.from", b"smtp.mailfrom", b"reason"],
        st.sampled_from([b"pass", b"fail (x)", b'"a;b"', b"legit.example", b"("]),
    ),
)
ARC_SETS = st.lists(
    st.tuples(
        st.sampled_from([b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"]),
        st.builds(
            lambda instance, rest: b" i=" + instance + b"; " + rest,
            st.sampled_from([b"1", b"2", b"01", b"51", b""]),
            DKIM_FIELDS | RESULTS,
        ),
    ),
    max_size=7,
)
FIELDS = st.one_of(
    st.tuples(st.sampled_from([b"From", b"FROM", b"From "]), FROM_VALUES),
    st.tuples(st.just(b"DKIM-Signature"), DKIM_FIELDS),
    st.tuples(st.sampled_from([b"Authentication-Results", b"X-DMARC-Quarantine"]), RESULTS),
    st.tuples(
        st.sampled_from([b"Subject", b"To", b"Received", b"X-\xe9", b""]), st.binary(max_size=20)
    ),
)
PATHS = st.builds(
    lambda left, address, right: left + address + right,
    st.sampled_from([b"<", b""]),
    ADDRESSES,
    st.sampled_from([b">", b""]),
)
STEPS = st.one_of(
    FIELDS.map(lambda each: ("L", each[0] + b"\0" + each[1])),
    PATHS.map(lambda each: ("M", each)),
    PATHS.map(lambda each: ("R", each)),
    st.sampled_from(
        [
            ("N", b""),
            ("E", b""),
            ("A", b""),
            ("B", b"Hello.\r\n"),
            ("H", b"mx.attack.example"),
            ("H", b""),
            ("C", b"192.0.2.66"),
            ("C", b""),
        ]
    ),
)
SESSIONS = st.lists(STEPS, max_size=14).map(
    lambda steps: pack(("C", b"192.0.2.66"), *steps, ("E", b""))
)
