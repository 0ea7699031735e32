"""The jobs service: trainings over HTTP for those without rights on the cluster, with quotas and an audit trail."""
