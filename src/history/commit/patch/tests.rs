use super::*;
use crate::tree::Meta;

fn patch(size: u64, block: u32, runs: &[(u64, u64)]) -> Patch {
    let meta = Meta { size, mode: 0o600, mtime_ns: 0, sha256: Hash::of(b"new") };
    let entry = Entry { path: "whatsapp.db".into(), meta };
    Patch { entry, of: Hash::of(b"old"), block, runs: runs.to_vec() }
}

fn refused(size: u64, block: u32, runs: &[(u64, u64)], why: &str) {
    let error = patch(size, block, runs).check().unwrap_err();
    assert!(error.contains(why), "{error}");
}

#[test]
fn blocks_are_a_power_of_two_from_512_bytes_to_1_mib() {
    for block in [512, 4096, 1 << 20] {
        patch(3 << 20, block, &[(0, 1)]).check().unwrap();
    }
    for block in [0, 1, 256, 513, 5000, 1 << 21, u32::MAX] {
        refused(3 << 20, block, &[(0, 1)], "blocks of");
    }
}

#[test]
fn runs_ascend_do_not_overlap_and_have_blocks() {
    patch(10 << 12, 4096, &[(0, 1), (1, 2), (9, 1)]).check().unwrap();
    refused(10 << 12, 4096, &[(3, 0)], "no blocks");
    refused(10 << 12, 4096, &[(3, 2), (4, 1)], "overlap");
    refused(10 << 12, 4096, &[(3, 1), (3, 1)], "overlap");
    refused(10 << 12, 4096, &[(5, 1), (1, 1)], "ascend");
}

#[test]
fn runs_end_with_the_file() {
    patch((10 << 12) - 1, 4096, &[(9, 1)]).check().unwrap();
    patch(0, 4096, &[]).check().unwrap();
    refused(0, 4096, &[(0, 1)], "beyond the end");
    refused(10 << 12, 4096, &[(10, 1)], "beyond the end");
    refused(10 << 12, 4096, &[(9, 2)], "beyond the end");
    refused(u64::MAX, 4096, &[(u64::MAX, 2)], "beyond the end");
    refused(u64::MAX, 512, &[(1, u64::MAX)], "beyond the end");
}

#[test]
fn the_last_block_may_be_short() {
    let patch = patch(10_000, 4096, &[(0, 1), (2, 1)]);
    assert_eq!(patch.ranges().collect::<Vec<_>>(), [(0, 4096), (8192, 1808)]);
    assert_eq!(patch.weight(), 5904);
    let huge = self::patch(u64::MAX, 1 << 20, &[(0, 1 << 44)]);
    huge.check().unwrap();
    assert_eq!(huge.weight(), u64::MAX);
}

#[test]
fn bytes_beyond_the_old_end_all_come_in_runs() {
    assert!(patch(10_000, 4096, &[]).covers_growth(10_000));
    assert!(patch(10_000, 4096, &[]).covers_growth(20_000));
    assert!(patch(10_000, 4096, &[(2, 1)]).covers_growth(8192));
    assert!(patch(10_000, 4096, &[(0, 3)]).covers_growth(1));
    assert!(patch(10_000, 4096, &[(1, 1), (2, 1)]).covers_growth(5000));
    assert!(!patch(10_000, 4096, &[(2, 1)]).covers_growth(8191), "a byte of the block before is missing");
    assert!(!patch(10_000, 4096, &[(0, 2)]).covers_growth(8192), "the end is missing");
    assert!(!patch(10_000, 4096, &[(0, 1), (2, 1)]).covers_growth(4096), "a block between is missing");
}
