"""The judge behind HTTP: `mr3 serve` on Ray Serve, and its client (`rewards.serving.client`), which needs neither."""
