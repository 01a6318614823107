"""Experience: completions become rewards, advantages, and the minibatches of several steps."""
