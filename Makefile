# Thin names for the commands behind them; each works in a clean clone.
.PHONY: setup run test nightly check mutants fresh fidelity calls

setup:  # install what is missing: system packages (as root) and .venv
	@lab/setup

run: setup  # the action table in every world this machine can do
	@.venv/bin/splab run

test: setup  # every suite, with its time budget
	@.venv/bin/python tests/run_suites.py

nightly: setup  # the same suites with full counts on a small guest kernel, and the set-up in an empty Debian
	@SPLAB_COUNTS=full .venv/bin/python tests/run_suites.py --nightly

check: setup  # lint, format, types, import rules
	@.venv/bin/python tests/run_suites.py check

mutants: setup  # patches that bring a weakness back: each must be noticed
	@.venv/bin/python tests/run_mutants.py

fresh:  # make setup and the memory rows in an empty Debian of its own (root)
	@lab/fresh

fidelity: setup  # simulator/FIDELITY.md again, from what the tests prove
	@.venv/bin/python tests/simulator_core/fidelity.py --write

calls: setup  # harness/faults/calls.json again: the StorPool calls that each operation and case needs; more of one only when CHANGELOG.md names it
	@.venv/bin/splab calls --write
