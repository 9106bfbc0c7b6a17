"""Running a release: plan, ledger, workers; the only package that knows Prefect and Ray."""
