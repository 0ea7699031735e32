"""Several trainings of one recipe that answer a question together: a search, cross-validation, a learning curve."""
