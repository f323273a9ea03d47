"""Folders on the Hugging Face Hub: named, listed, read by ranges, downloaded and checked.

huggingface_hub does what it does: authentication, cache, redirects, retries, transfer. What it leaves undone
stands here: contents are checked against the Hub's digests, ranges against what was asked for, and a folder
of which a part is missing is never taken for a whole one. It is imported where it is used first, since it
takes a second that local folders need not wait for.
"""
