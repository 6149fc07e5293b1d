"""Training: adapters of the method to TRL, Transformers, Accelerate and PEFT."""
