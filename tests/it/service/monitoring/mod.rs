//! Dashboards, alerts and the runbook: they speak of metrics that exist, and hold in front of a real Prometheus.

mod files;
mod scenarios;
