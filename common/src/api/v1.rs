//! Version 1 of the API: JSON, `snake_case`, units in names, times in RFC 3339 UTC.
