//! `delete` and `undelete`: only on their own, for they end or replace what a bot works on.

use std::io::{self, IsTerminal as _, Write as _};

use super::one_shot::{config, named};
use super::output::Output;
use super::{holder, setup, show};
use crate::cli::{Delete, OneShot};
use crate::config::{Config, Place};
use crate::error::{Code, Error, Result};
use crate::session::SessionKey;
use crate::sync::deletion;
use crate::sync::start::Command;

/// `delete`
pub(super) async fn delete(args: &Delete, out: Output) -> Result<()> {
    let (config, key) = alone(&args.one)?;
    if !args.yes {
        confirm(&key, args.purge)?;
    }
    let env = setup::env(&config, Command::Watch).await?;
    let report = deletion::delete(&env, &key, args.purge).await?;
    out.result(&report, show::deleted)
}

/// `undelete`
pub(super) async fn undelete(one: &OneShot, out: Output) -> Result<()> {
    let (config, key) = alone(one)?;
    let env = setup::env(&config, Command::Watch).await?;
    let report = deletion::undelete(&env, &key).await?;
    out.result(&report, show::undeleted)
}

/// Of a root that no process holds. // P7
fn alone(one: &OneShot) -> Result<(Config, SessionKey)> {
    let place = Place::new(&one.place)?;
    let key = named(place.target(one.key.as_ref())?)?;
    if holder::find(&place.root)?.is_some() {
        let text = format!(
            "a process keeps {}, and the bots there are not ours to stop: stop it and its bot, then run this again \
             (for a session that lies elsewhere: with another --root)",
            place.root.display()
        );
        return Err(Error::new(Code::RootLocked, text));
    }
    Ok((config(one, place, Some(&key))?, key))
}

/// Asks whoever sits at the terminal.
fn confirm(key: &SessionKey, purge: bool) -> Result<()> {
    let question = if purge { " for good? Nothing brings it back." } else { "? `undelete` brings it back." };
    ask(
        &format!("Delete session {key}{question} Its bot must be stopped, wherever it runs."),
        &format!("--yes deletes session {key} without being asked"),
        "nothing was deleted",
    )
}

/// Asks whoever sits at the terminal; without one, says how not to be asked.
pub(super) fn ask(question: &str, without: &str, else_what: &str) -> Result<()> {
    let mut stderr = io::stderr();
    if !io::stdin().is_terminal() || !stderr.is_terminal() {
        return Err(Error::new(Code::Usage, format!("there is no terminal to ask at: {without}")));
    }
    let failed = |error| Error::new(Code::Internal, "the terminal cannot be asked").because(error);
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    if is_yes(&answer) { Ok(()) } else { Err(Error::new(Code::Usage, format!("not confirmed: {else_what}"))) }
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        assert!(["y\n", "YES", " yes \n"].into_iter().all(is_yes));
        assert!(!["", "\n", "n", "yep", "u/s"].into_iter().any(is_yes));
    }
}
