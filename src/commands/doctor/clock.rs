//! Whether our clock is that of the project.

use jiff::{SignedDuration, Timestamp};

use super::check::Check;

/// No promise rests on clocks. But certificates and tokens do, and people compare times.
const FAR: SignedDuration = SignedDuration::from_secs(30);

/// `server` is the `Date` (whole seconds) of an answer that came between two moments of ours.
pub(super) fn check(server: Timestamp, before: Timestamp, after: Timestamp) -> Check {
    const NAME: &str = "clock";
    let cut = SignedDuration::from_secs(1);
    let (ahead, behind) = (before.duration_since(server) - cut, server.duration_since(after));
    let (off, word) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    if off <= FAR {
        return Check::ok(NAME, "this machine's clock is that of the project");
    }
    let found = format!("this machine's clock is {} s {word} that of the project", off.as_secs());
    Check::warn(NAME, found, "set the clock (NTP): certificates and tokens are refused when it is far off")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    #[test]
    fn a_clock_that_is_far_off_is_told_with_its_direction() {
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        // A slow answer is no skew.
        assert_eq!(check(at(5), at(0), at(60)).verdict, Verdict::Ok);
        assert_eq!(check(at(0), at(0), at(1)).verdict, Verdict::Ok);
        let ahead = check(at(0), at(100), at(101));
        assert!(ahead.verdict == Verdict::Warn && ahead.found.contains("99 s ahead of"), "{ahead:?}");
        let behind = check(at(100), at(0), at(1));
        assert!(behind.verdict == Verdict::Warn && behind.found.contains("99 s behind"), "{behind:?}");
    }
}
