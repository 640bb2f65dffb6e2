"""What a platform team watches CareRelay by: the metric catalogue as a page, Prometheus rules, Grafana dashboards."""
