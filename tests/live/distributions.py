"""What four distributions of Postfix have that concerns a milter, in our own words: their published
main.cf and master.cf were read for it in November 2026, and nothing else of them is here. PORT and
the like are places of the test; what the other filters' containers and services would be is nobody
at all, and Postfix passes them by, as their milter_default_action = accept says."""

from __future__ import annotations

from typing import NamedTuple


class Distribution(NamedTuple):
    """`main` and `master` as they are installed; `lines` and `options` (SERVICE/TYPE/NAME=VALUE)
    are what our page adds. `filters`: who is found beside us."""

    name: str
    main: str
    master: str
    lines: str
    options: str = ""
    filters: tuple[str, ...] = ()


OURS = "{ inet:127.0.0.1:8893, default_action=tempfail, content_timeout=300s }"

MAILCOW = Distribution(
    "mailcow",
    """\
compatibility_level = 2
append_dot_mydomain = no
mail_name = Postcow
milter_default_action = accept
milter_protocol = 6
milter_mail_macros = i {mail_addr} {client_addr} {client_name} {auth_authen}
postscreen_access_list = permit_mynetworks
recipient_canonical_classes = envelope_recipient
smtpd_milters = inet:127.0.0.1:RSPAMD
non_smtpd_milters = inet:127.0.0.1:RSPAMD
""",
    """\
127.0.0.1:PORT inet n - n - 1 postscreen
smtpd pass - - n - - smtpd -o smtpd_sasl_auth_enable=no
127.0.0.1:SUBMISSION inet n - n - - smtpd
  -o smtpd_client_restrictions=permit_mynetworks,permit_sasl_authenticated,reject
127.0.0.1:BACK inet n - n - 10 smtpd
  -o content_filter=
  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_milters
tlsproxy unix - - n - 0 tlsproxy
dnsblog unix - - n - 0 dnsblog
""",
    f"smtpd_milters = {OURS}, inet:127.0.0.1:RSPAMD\n",
    filters=("Rspamd",),
)
DOCKER_MAILSERVER = Distribution(
    "docker-mailserver",
    """\
compatibility_level = 2
append_dot_mydomain = no
milter_default_action = accept
milter_protocol = 6
dkim_milter = inet:localhost:OPENDKIM
dmarc_milter = inet:localhost:OPENDMARC
smtpd_milters = $dkim_milter $dmarc_milter
non_smtpd_milters = $dkim_milter
""",
    """\
127.0.0.1:PORT inet n - n - - smtpd
127.0.0.1:SUBMISSION inet n - n - - smtpd
  -o smtpd_client_restrictions=permit_sasl_authenticated,reject
  -o milter_macro_daemon_name=ORIGINATING
127.0.0.1:BACK inet n - n - - smtpd
  -o content_filter=
  -o smtpd_recipient_restrictions=permit_mynetworks,reject
  -o receive_override_options=no_header_body_checks,no_unknown_recipient_checks,no_milters
smtp-amavis unix - - n - 2 smtp -o smtp_send_xforward_command=yes -o disable_dns_lookups=yes
""",
    f"content_filter = smtp-amavis:[127.0.0.1]:BACK\nsmtpd_milters = {OURS}, $dkim_milter\n",
    filters=("OpenDKIM",),
)
IREDMAIL = Distribution(
    "iRedMail",
    """\
compatibility_level = 2
swap_bangpath = no
allow_percent_hack = no
enable_original_recipient = no
mynetworks = 127.0.0.1
content_filter = smtp-amavis:[127.0.0.1]:BACK
""",
    """\
127.0.0.1:PORT inet n - n - - smtpd
127.0.0.1:SUBMISSION inet n - n - - smtpd
  -o smtpd_client_restrictions=permit_sasl_authenticated,reject
smtp-amavis unix - - n - 2 smtp
  -o local_header_rewrite_clients= -o smtp_send_xforward_command=yes -o disable_dns_lookups=yes
127.0.0.1:BACK inet n - n - - smtpd
  -o content_filter=
  -o local_header_rewrite_clients=
  -o smtpd_recipient_restrictions=permit_mynetworks,reject
  -o receive_override_options=no_header_body_checks,no_unknown_recipient_checks
""",
    f"smtpd_milters = {OURS}\n",
    "127.0.0.1:BACK/inet/smtpd_milters=",
    filters=("Amavis",),
)
MAIL_IN_A_BOX = Distribution(
    "Mail-in-a-Box",
    """\
compatibility_level = 2
smtpd_forbid_bare_newline = normalize
milter_default_action = accept
smtpd_milters = inet:127.0.0.1:OPENDKIM inet:127.0.0.1:OPENDMARC
non_smtpd_milters = $smtpd_milters
""",
    """\
127.0.0.1:PORT inet n - - - - smtpd
127.0.0.1:SUBMISSION inet n - - - - smtpd
  -o smtpd_milters=inet:127.0.0.1:OPENDKIM
  -o cleanup_service_name=authclean
authclean unix n - - - 0 cleanup -o nested_header_checks=
""",
    f"smtpd_milters = {OURS}, inet:127.0.0.1:OPENDKIM\n"
    "non_smtpd_milters = inet:127.0.0.1:OPENDKIM\n",
    filters=("OpenDKIM",),
)
ALL = (MAILCOW, DOCKER_MAILSERVER, IREDMAIL, MAIL_IN_A_BOX)
