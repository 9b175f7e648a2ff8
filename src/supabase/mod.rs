//! The HTTP client for Supabase: storage calls, retries, errors by meaning.
