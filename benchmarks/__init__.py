"""One file a question. Each prints medians and p99 with their unit, and its peer from the same run where there is one."""
