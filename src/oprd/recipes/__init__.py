"""Runs to begin from: YAML files for `oprd train --config`, one a use."""
