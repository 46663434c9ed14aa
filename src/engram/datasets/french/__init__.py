"""A small grammar of English and French: words, and clauses in both languages."""
