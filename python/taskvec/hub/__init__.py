"""Lists, reads, downloads and checks folders on the Hugging Face Hub.

huggingface_hub does authentication, cache, redirects, retries and transfer. This package adds what it does
not do: it compares contents with the Hub's digests and byte ranges with the request, and never takes an
incomplete folder for a complete one. huggingface_hub takes a second to import, so it is imported where it is
first used, and work on local folders does not wait for it.
"""
