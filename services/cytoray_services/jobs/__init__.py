"""Jobs on a cluster: what is submitted, where it runs, and what is said of it, with the same words everywhere."""
