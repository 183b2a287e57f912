"""End-to-end tests of failures: killed processes, outages, full disks and overload."""
