"""Jobs for launchers, and the launcher that is built in."""
