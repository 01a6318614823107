"""The LightningModules: one optimizer step is one ``training_step``."""
