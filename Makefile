# One command each: run, test, check, demo. Every target does its own set-up and is quick when there is nothing to set up.
VENV ?= .venv
export VENV
PYTEST = $(VENV)/bin/python -m pytest -q
# Side by side: two processes for each processor, since half of the time is waiting; a file to one process. Those that
# measure processor time run after them, a process for each processor; those marked alone at last, one by one.
SIDE_BY_SIDE = -n $(shell n=$$(nproc); echo $$((n < 4 ? n * 2 : 8))) --dist loadfile
FOR_EACH_PROCESSOR = -n $(shell nproc) --dist load
# Run a second time with our own code for the milter protocol instead of libmilter: what an MTA, a failure or an attacker does to it.
SECOND = DMARC_MILTER_TEST_LIBRARY=native $(PYTEST)
BOTH = tests/session/test_milter_protocol.py tests/process/test_silent_connections.py tests/daemon/test_supervisor.py \
	tests/live/test_postfix.py tests/live/test_sendmail.py tests/attacks/test_clients.py
QUICK = tests/core tests/config tests/mta tests/telemetry tests/web tests/tools tests/test_*.py

.PHONY: help setup run test check lint
help:
	@sed -n 's/^## //p' Makefile

## make setup   a Python environment in .venv with all libraries (Debian packages through apt where allowed)
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml tools/setup.sh
	@tools/setup.sh

$(VENV)/.ready-test: pyproject.toml tools/setup.sh
	@tools/setup.sh test

## make run     the milter in the foreground, its store in .run (stop with Ctrl-C)
run: $(VENV)/.ready
	@tools/run.sh

## make test    every test, with a private Postfix, Sendmail and PostgreSQL that are unpacked, not installed
test: $(VENV)/.ready-test .test/.ready .test/openspf/rfc7208-tests.yml .test/opendmarc/.ready .test/readers/.ready .test/report_readers/.ready .test/deb/.ready
	@status=0; \
	$(PYTEST) $(SIDE_BY_SIDE) -m "not (alone or processor)" tests || status=$$?; \
	$(PYTEST) $(FOR_EACH_PROCESSOR) -m processor tests || status=$$?; \
	$(PYTEST) -m alone tests || status=$$?; \
	$(SECOND) $(SIDE_BY_SIDE) -m "not (alone or processor)" $(BOTH) || status=$$?; \
	exit $$status

## make test-fast  the quick tests of the core and of what needs no server, in under a minute: for after every change
.PHONY: test-fast
test-fast: $(VENV)/.ready-test .test/openspf/rfc7208-tests.yml
	@$(PYTEST) $(SIDE_BY_SIDE) -m "not (alone or processor or live or slow)" $(QUICK)

.test/.ready: tools/setup_tests.sh
	@tools/setup_tests.sh

.test/openspf/rfc7208-tests.yml: tools/fetch_openspf.py | $(VENV)/.ready-test .test/.ready
	@$(VENV)/bin/python tools/fetch_openspf.py
	@touch $@

.test/opendmarc/.ready: tools/fetch_opendmarc.sh | .test/.ready
	@tools/fetch_opendmarc.sh

.test/readers/.ready: tools/setup_readers.sh tests/fuzz/readers/package-lock.json | $(VENV)/.ready-test .test/.ready
	@tools/setup_readers.sh

.test/report_readers/.ready: tools/setup_report_readers.sh tests/readers/requirements.txt | $(VENV)/.ready-test .test/.ready
	@tools/setup_report_readers.sh

# The package once, so that the tests find its libraries ready; they build it again with the code as it is then.
.test/deb/.ready: pyproject.toml tools/deb.sh | $(VENV)/.ready-test .test/.ready
	@BUILD=.test/deb DEB_COMPRESSION=gzip tools/deb.sh .test/deb/out
	@touch $@

## make check   what continuous integration runs: style, types, then make test
check: export DMARC_MILTER_FUZZ_SECONDS = 10
check: lint test

lint: $(VENV)/.ready-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

## make generated   what is printed from the code: sample and reference of the configuration, man pages, completion, who is responsible
.PHONY: generated
generated: $(VENV)/.ready-test
	@$(VENV)/bin/dmarc-milter config sample > conf/dmarc-milter.toml
	@$(VENV)/bin/dmarc-milter config reference > docs/reference/configuration.md
	@$(VENV)/bin/python tools/man_pages.py docs/man
	@$(VENV)/bin/python tools/completions.py packaging/completion
	@$(VENV)/bin/python tools/owner.py write

## make deb     a Debian package for this release and architecture, in dist/
.PHONY: deb
deb: $(VENV)/.ready
	@tools/deb.sh dist

## make container-check  builds the container images with buildah, without an engine, and starts them: a message, the health check, SIGTERM
.PHONY: container-check
container-check: $(VENV)/.ready-test
	@tools/container_check.sh

## make dist    a wheel and a source archive, in dist/
.PHONY: dist
dist: $(VENV)/.ready-test
	@$(VENV)/bin/python tools/owner.py say
	@$(VENV)/bin/python -m build --outdir dist .

## make demo    eight messages through a private Postfix: the reply, the field and the reason for each
.PHONY: demo
demo: $(VENV)/.ready-test .test/.ready
	@$(VENV)/bin/python tools/demo.py

## make soak    the long forms of the fault, load and fuzz tests, for two hours; soak-faults and soak-fuzz are its parts
.PHONY: soak soak-faults soak-fuzz
soak: soak-faults soak-fuzz

soak-faults: $(VENV)/.ready-test .test/.ready
	DMARC_MILTER_SOAK=1 $(PYTEST) -s -m soak --timeout=14400 --ignore=tests/fuzz tests
	DMARC_MILTER_SOAK=1 $(SECOND) -s -m soak --timeout=14400 --ignore=tests/fuzz tests

soak-fuzz: $(VENV)/.ready-test .test/readers/.ready
	DMARC_MILTER_SOAK=1 $(PYTEST) -s -m soak --timeout=14400 tests/fuzz

## make other-filters   OpenDKIM, OpenDMARC, Rspamd, SpamAssassin and Amavis behind this milter, from Debian packages
.PHONY: other-filters
other-filters: $(VENV)/.ready-test .test/.ready
	@[ -e .test/peers ] || tools/bench_peers.sh
	@[ -e .test/filters ] || tools/other_filters.sh
	@DMARC_MILTER_FILTERS=1 $(VENV)/bin/python -m pytest -q -rs tests/live/test_other_filters.py

## make bench   cost, rate, latency and memory beside an empty pymilter, and beside rspamd, OpenDKIM and OpenDMARC after make bench-peers
.PHONY: bench bench-peers profile
bench: $(VENV)/.ready-test .test/.ready
	@cd tests && PYTHONPATH=../milter:. ../$(VENV)/bin/python -m bench

## make bench-ledger  a large ledger: every page and command over it, and several hosts that drain into one PostgreSQL
.PHONY: bench-ledger
bench-ledger: $(VENV)/.ready-test .test/.ready
	@cd tests && export PYTHONPATH=../milter:. && \
	../$(VENV)/bin/python -m bench.ledger_hosts && \
	../$(VENV)/bin/python -m bench.ledger_size --messages $${MESSAGES:-2000000} && \
	../$(VENV)/bin/python -m bench.ledger_size --messages $${MESSAGES:-10000000} --postgresql

bench-peers:
	@tools/bench_peers.sh

## make report-readers  other people's readers with every shape of our reports: the table of docs/reference/reports.md
.PHONY: report-readers
report-readers: $(VENV)/.ready-test .test/.ready .test/report_readers/.ready
	@cd tests && PYTHONPATH=../milter:. ../$(VENV)/bin/python -m readers --write

## make pictures  the dashboard in Chromium, at several widths, light and dark: docs/pictures
.PHONY: pictures
pictures: $(VENV)/.ready-test
	@cd tests && PYTHONPATH=../milter:. ../$(VENV)/bin/python -m live.pictures ../docs/pictures

## make profile where the processor time of one message goes
profile: $(VENV)/.ready-test
	@cd tests && PYTHONPATH=../milter:. ../$(VENV)/bin/python -m bench.stages

## make pythons  the core and session tests with Python 3.12 and 3.13, where they are installed, without pymilter
.PHONY: pythons python-3.14
pythons: .test/openspf/rfc7208-tests.yml .test/opendmarc/.ready
	@tools/pythons.sh

## make python-3.14  the wheel in a Debian sid root without a compiler: the core and session tests, and serve
python-3.14: $(VENV)/.ready-test .test/openspf/rfc7208-tests.yml .test/opendmarc/.ready
	@tools/python_sid.sh

## make conformance  cases and passes per RFC section and attack category, in one table
.PHONY: conformance
conformance: $(VENV)/.ready-test
	@$(VENV)/bin/python tools/conformance.py
