"""Classic control, compiled together with the policy."""
