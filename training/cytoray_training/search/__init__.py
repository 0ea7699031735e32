"""Several training runs of one recipe that answer a question together: search, cross-validation, learning curve."""
