"""What runs inside a sandbox: standard library only, sent there as source."""
