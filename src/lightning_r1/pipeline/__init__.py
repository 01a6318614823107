"""The pipeline: a graph of phases whose results are kept by what they were made from."""
