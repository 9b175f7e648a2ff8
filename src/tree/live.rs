//! Recognises formats that a running process keeps across several files: copying them file by file gives a torn
//! copy. SQLite has a module of its own, [`sqlite`](super::sqlite).

/// Whether the names of one directory are those of a `LevelDB`: `CURRENT` beside a `MANIFEST-*`.
pub(super) fn is_leveldb<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut current, mut manifest) = (false, false);
    for name in names {
        current |= name == "CURRENT";
        manifest |= name.starts_with("MANIFEST-");
    }
    current && manifest
}
