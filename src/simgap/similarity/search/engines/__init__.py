"""Define the search engines. All engines return the same bits, but they use different hardware or libraries."""
