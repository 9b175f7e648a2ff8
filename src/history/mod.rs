//! History in the bucket: names, commit format, chain, retention, replay.
