"""The verb *report*: what a run or a pipeline has come to, on the console, in a picture, and in one page."""
