"""The dashboards of `deploy/grafana`, built from tables of panels: `python -m deploy.dashboards` writes them again."""
