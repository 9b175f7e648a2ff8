//! A profile that a real Chromium wrote, and small databases made by hand.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::crc;

/// Below the fixture: the database of a page under `https://web.whatsapp.com`, which was none of `WhatsApp`'s.
pub const INDEXED_DB: &str = "Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb";
/// What is too large for it.
pub const BLOBS: &str = "Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.blob";
/// Where the page noted an account.
pub const LOCAL_STORAGE: &str = "Default/Local Storage/leveldb";

/// The files of the profile: `IndexedDB` with tables, a log and three blobs, `Local Storage` with a log.
/// Chromium 148, killed.
pub fn profile() -> BTreeMap<String, Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chromium-profile.tar.zst");
    let mut archive = tar::Archive::new(zstd::Decoder::new(File::open(path).unwrap()).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    });
    entries.collect()
}

/// Writes the profile into a directory.
pub fn unpack(into: &Path) {
    for (path, content) in profile() {
        let path = into.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// A log or a manifest of these records, each shorter than a block.
pub fn records(records: &[&[u8]]) -> Vec<u8> {
    let mut file = Vec::new();
    for record in records {
        file.extend(crc::sum([&[1], record]));
        file.extend(u16::try_from(record.len()).unwrap().to_le_bytes());
        file.push(1);
        file.extend(*record);
    }
    file
}

/// A record of a log.
pub fn batch(sequence: u64, writes: &[(&[u8], Option<&[u8]>)]) -> Vec<u8> {
    let mut record = sequence.to_le_bytes().to_vec();
    record.extend(u32::try_from(writes.len()).unwrap().to_le_bytes());
    for (key, value) in writes {
        record.push(u8::from(value.is_some()));
        for part in std::iter::once(key).chain(value) {
            record.push(u8::try_from(part.len()).unwrap());
            record.extend(*part);
        }
    }
    record
}

/// A table with one block of these entries.
pub fn table(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    let data = block(&mut file, entries);
    let meta = block(&mut file, &[]);
    let index = block(&mut file, &[(b"z", &data)]);
    let mut footer = [meta, index].concat();
    footer.resize(40, 0);
    file.extend(footer);
    file.extend(0xdb47_7524_8b80_fb57_u64.to_le_bytes());
    file
}

/// Appends a block and returns its handle.
fn block(file: &mut Vec<u8>, entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let begin = file.len();
    for (key, value) in entries {
        file.extend([0, u8::try_from(key.len()).unwrap(), u8::try_from(value.len()).unwrap()]);
        file.extend([*key, *value].concat());
    }
    file.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    let size = file.len() - begin;
    let sum = crc::sum([&file[begin..], &[0]]);
    file.push(0);
    file.extend(sum);
    [varint(begin), varint(size)].concat()
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}
