"""What a run's figures are called: the columns of metrics.csv and TensorBoard's tags."""

RECENT = 100  # episodes in the running mean return
