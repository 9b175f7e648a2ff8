//! Reports as text for people. Ids are shown in full: the reader needs them, and stdout is no log.

use std::fmt::Write;

use humantime::format_duration;
use indicatif::HumanBytes;
use jiff::Timestamp;

use crate::sync::report::{
    DeleteReport, HeldFile, HistoryReport, MarkReport, MirrorStatus, SessionState, SessionStatus,
    StatusReport, SyncReport, UndeleteReport, WatchMode,
};

/// Held paths of a session that are shown: a large account has thousands.
const HELD: usize = 10;

/// `status`
#[must_use]
pub fn status(report: &StatusReport, now: Timestamp) -> String {
    let mut out = String::new();
    if report.sessions.is_empty() {
        out.push_str("no sessions\n");
    }
    for one in &report.sessions {
        session(&mut out, one, now);
    }
    match (&report.watch, report.running) {
        (Some(watch), _) if watch.mode == WatchMode::Poll => {
            let reason = watch.reason.as_deref().unwrap_or("no watches are left");
            line(&mut out, format_args!("changes are found by polling: {reason}"));
        }
        (_, false) => line(&mut out, format_args!("no process watches this root")),
        _ => {}
    }
    out
}

/// `status --all`: a line a session.
#[must_use]
pub fn project(report: &StatusReport) -> String {
    let mut out = String::new();
    let width = report.sessions.iter().map(|one| one.session.len()).max().unwrap_or(0);
    for SessionStatus { session, head, last_commit_at, files, bytes, alarms, .. } in &report.sessions {
        let head = head.as_deref().unwrap_or("none");
        let at = last_commit_at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        let amount = amount(*files, *bytes);
        line(&mut out, format_args!("{session:width$}  {head:26}  {at:20}  {amount}"));
        for alarm in alarms {
            line(&mut out, format_args!("{:width$}  alarm: {alarm}", ""));
        }
    }
    let sessions = report.sessions.len();
    let s = if sessions == 1 { "" } else { "s" };
    let total = |of: fn(&SessionStatus) -> u64| report.sessions.iter().map(of).sum();
    let amount = amount(total(|one| one.files), total(|one| one.bytes));
    line(&mut out, format_args!("{sessions} session{s}, {amount}"));
    out
}

fn session(out: &mut String, one: &SessionStatus, now: Timestamp) {
    let head = one.head.as_deref().unwrap_or("none");
    line(out, format_args!("{}  {}  head {head}", one.session, word(one.state)));
    let committed = one.last_commit_at.map_or_else(String::new, |at| format!(", committed {}", ago(at, now)));
    let dirty = if one.dirty > 0 { format!(", {} changed since", one.dirty) } else { String::new() };
    line(out, format_args!("  {}{committed}{dirty}", amount(one.files, one.bytes)));
    if let Some(identity) = &one.identity {
        let paired = if identity.paired { "paired" } else { "not paired" };
        let account = identity.account.as_deref().map_or_else(String::new, |account| format!(", {account}"));
        line(out, format_args!("  identity: {} {paired}{account}", identity.format));
    }
    held(out, &one.held, now);
    for alarm in &one.alarms {
        line(out, format_args!("  alarm: {alarm}"));
    }
    mirror(out, &one.mirror);
}

fn mirror(out: &mut String, mirror: &MirrorStatus) {
    if !mirror.enabled {
        return;
    }
    if mirror.pending > 0 {
        let MirrorStatus { pending, lag_seconds, .. } = mirror;
        line(out, format_args!("  mirror: {pending} objects to go, {lag_seconds:.0} s behind"));
    }
    if mirror.skipped > 0 {
        line(out, format_args!("  mirror: {} files do not fit the bucket; history has them", mirror.skipped));
    }
}

fn held(out: &mut String, held: &[HeldFile], now: Timestamp) {
    for HeldFile { path, reason, since } in held.iter().take(HELD) {
        line(out, format_args!("  held: {path}: {reason}, {}", ago(*since, now)));
    }
    if held.len() > HELD {
        line(out, format_args!("  … and {} more (--json lists all)", held.len() - HELD));
    }
}

/// `sync`
#[must_use]
pub fn sync(report: &SyncReport, now: Timestamp) -> String {
    let mut out = String::new();
    if report.sessions.is_empty() {
        out.push_str("no sessions\n");
    }
    for one in &report.sessions {
        let commit = one.commit.as_deref().unwrap_or("nothing");
        let what = if one.changed { "committed" } else { "unchanged at" };
        line(&mut out, format_args!("{}  {what} {commit}, {}", one.session, amount(one.files, one.bytes)));
        held(&mut out, &one.held, now);
    }
    out
}

/// `logout`, `accept-identity`; `what` says what was done.
#[must_use]
pub fn mark(report: &MarkReport, what: &str) -> String {
    let pinned =
        report.pinned.as_deref().map_or_else(String::new, |id| format!("; what was before is pinned: {id}"));
    format!("{}  {what} {}{pinned}\n", report.session, report.commit)
}

/// `delete`
#[must_use]
pub fn deleted(report: &DeleteReport) -> String {
    let DeleteReport { session, commit, history_removed, mirror_removed, .. } = report;
    let mut out = format!(
        "{session}  deleted at {commit}; {history_removed} objects of history and {mirror_removed} of the mirror removed\n"
    );
    if let Some(pinned) = &report.pinned {
        line(&mut out, format_args!("  `undelete {session}` brings it back: {pinned} is pinned"));
    }
    if let Some(aside) = &report.set_aside {
        line(&mut out, format_args!("  local files were set aside: {aside}"));
    }
    out
}

/// `undelete`
#[must_use]
pub fn undeleted(report: &UndeleteReport) -> String {
    let UndeleteReport { session, commit, restored } = report;
    match restored {
        Some(id) => format!("{session}  is back at {commit} as it was at {id}: the next start restores it\n"),
        None => format!("{session}  is not deleted: nothing was done, its head is {commit}\n"),
    }
}

/// `history`
#[must_use]
pub fn history(report: &HistoryReport) -> String {
    let mut out = String::new();
    for point in &report.points {
        let at = point.created_at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
        let kind = if point.base { "base" } else { "delta" };
        let size = HumanBytes(point.size).to_string();
        let mut notes = Vec::new();
        if report.head.as_deref() == Some(point.id.as_str()) {
            notes.push("head".to_owned());
        } else if !point.in_chain {
            notes.push("cut off".to_owned());
        }
        notes.extend(point.pins.iter().map(|reason| format!("pinned: {reason}")));
        let row = format!("{}  {at:20}  {kind:5}  {size:>10}  {}", point.id, notes.join(", "));
        line(&mut out, format_args!("{}", row.trim_end()));
    }
    out
}

fn word(state: SessionState) -> &'static str {
    match state {
        SessionState::Starting => "starting",
        SessionState::Waiting => "waiting for storage",
        SessionState::Queued => "waiting for another process",
        SessionState::Restoring => "restoring",
        SessionState::Ready => "ready",
        SessionState::NotOwned => "not owned",
        SessionState::Held => "held",
        SessionState::Taken => "taken over by another process",
        SessionState::Stopped => "not watched",
    }
}

/// `5461 files, 3.01 MiB`
#[must_use]
pub fn amount(files: u64, bytes: u64) -> String {
    let s = if files == 1 { "" } else { "s" };
    format!("{files} file{s}, {}", HumanBytes(bytes))
}

/// Whole seconds; clocks that disagree make no negative ages.
fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = u64::try_from(now.as_second().saturating_sub(at.as_second())).unwrap_or(0);
    format!("{} ago", format_duration(std::time::Duration::from_secs(seconds)))
}

pub(super) fn line(out: &mut String, args: std::fmt::Arguments<'_>) {
    writeln!(out, "{args}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::report::{IdentityStatus, Point, SessionSync};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn status_shows_what_is_held_and_why() {
        let now = at("2026-11-23T21:00:10Z");
        let one = SessionStatus {
            state: SessionState::Ready,
            head: Some("00000003-00000042-1b20c7d9".to_owned()),
            epoch: Some(3),
            ready: true,
            last_commit_at: Some(at("2026-11-23T21:00:07Z")),
            files: 5461,
            bytes: 3_151_624,
            dirty: 2,
            held: vec![HeldFile {
                path: "creds.json".to_owned(),
                reason: "bad_json".to_owned(),
                since: at("2026-11-23T20:59:10Z"),
            }],
            identity: Some(IdentityStatus { format: "baileys".to_owned(), paired: true, account: None }),
            alarms: vec!["the identity is held".to_owned()],
            mirror: MirrorStatus { enabled: true, pending: 3, lag_seconds: 12.4, skipped: 1 },
            ..SessionStatus::blank(&"u/s".parse().unwrap())
        };
        let report =
            StatusReport { version: "1".to_owned(), running: false, watch: None, sessions: vec![one] };
        assert_eq!(
            status(&report, now),
            "u/s  ready  head 00000003-00000042-1b20c7d9\n  \
             5461 files, 3.01 MiB, committed 3s ago, 2 changed since\n  \
             identity: baileys paired\n  \
             held: creds.json: bad_json, 1m ago\n  \
             alarm: the identity is held\n  \
             mirror: 3 objects to go, 12 s behind\n  \
             mirror: 1 files do not fit the bucket; history has them\n\
             no process watches this root\n"
        );
    }

    #[test]
    fn a_project_is_a_line_a_session_and_a_sum() {
        let one = |session: &str, at: Option<&str>, files, alarm: &[&str]| SessionStatus {
            head: at.map(|_| "00000003-00000042-1b20c7d9".to_owned()),
            last_commit_at: at.map(|text| text.parse().unwrap()),
            files,
            bytes: files * 512,
            alarms: alarm.iter().map(ToString::to_string).collect(),
            ..SessionStatus::blank(&session.parse().unwrap())
        };
        let sessions = vec![
            one("u/s", Some("2026-11-23T21:00:07.5Z"), 4, &[]),
            one("user/new", None, 0, &["it has no history yet"]),
        ];
        let report = StatusReport { version: "1".to_owned(), running: false, watch: None, sessions };
        assert_eq!(
            project(&report),
            "u/s       00000003-00000042-1b20c7d9  2026-11-23T21:00:07Z  4 files, 2.00 KiB\n\
             user/new  none                        -                     0 files, 0 B\n          \
             alarm: it has no history yet\n\
             2 sessions, 4 files, 2.00 KiB\n"
        );
    }

    #[test]
    fn sync_tells_a_new_commit_from_none() {
        let one = |changed| SessionSync {
            session: "u/s".to_owned(),
            commit: Some("c".to_owned()),
            changed,
            files: 1,
            bytes: 10,
            held: Vec::new(),
        };
        let report = SyncReport { sessions: vec![one(true), one(false)] };
        let text = "u/s  committed c, 1 file, 10 B\nu/s  unchanged at c, 1 file, 10 B\n";
        assert_eq!(sync(&report, Timestamp::UNIX_EPOCH), text);
    }

    #[test]
    fn of_many_held_paths_the_first_are_shown_and_the_others_counted() {
        let one = |number| HeldFile {
            path: format!("{number}.json"),
            reason: "identity".to_owned(),
            since: Timestamp::UNIX_EPOCH,
        };
        let lines = |count| {
            let mut out = String::new();
            held(&mut out, &(0..count).map(one).collect::<Vec<_>>(), Timestamp::UNIX_EPOCH);
            out.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lines(HELD).len(), HELD);
        let many = lines(23_000);
        assert_eq!(many.len(), HELD + 1);
        assert_eq!(many[HELD], "  … and 22990 more (--json lists all)");
    }

    #[test]
    fn history_marks_the_head_pins_and_what_was_cut_off() {
        let point = |id: &str, in_chain, pins: &[&str]| Point {
            id: id.to_owned(),
            parent: None,
            base: in_chain,
            created_at: in_chain.then(|| at("2026-11-23T21:00:07.123Z")),
            size: 1024,
            in_chain,
            pins: pins.iter().map(ToString::to_string).collect(),
        };
        let points = vec![point("b", true, &[]), point("a", false, &["logout"])];
        let report = HistoryReport { session: "u/s".to_owned(), head: Some("b".to_owned()), points };
        let text = history(&report);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], "b  2026-11-23T21:00:07Z  base     1.00 KiB  head");
        assert_eq!(rows[1], "a  -                     delta    1.00 KiB  cut off, pinned: logout");
    }
}
