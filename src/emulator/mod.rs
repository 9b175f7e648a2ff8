//! A Supabase on loopback that keeps its objects as plain files: for `dev` and the tests.
