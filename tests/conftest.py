"""For all tests: nothing is downloaded, and library bars stay quiet."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TQDM_DISABLE", "1")
