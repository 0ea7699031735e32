"""The jobs service: training runs over HTTP for users without rights on the cluster, with quotas and an audit trail."""
