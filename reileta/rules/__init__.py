"""Pure rules: values in, results and events out."""
