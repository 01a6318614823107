"""Models and tokenizers: the only floor that imports transformers, tokenizers and safetensors."""
