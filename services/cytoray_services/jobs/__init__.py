"""Jobs on a cluster: submissions, backends and the description of jobs, the same for every backend."""
