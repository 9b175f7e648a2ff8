//! The bot as our child: its own process group, our signals, its exit code.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::fs::Access;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::error::{Code, Error};

/// Variables that hold our secrets or lead to them; a bot has no use for them.
const OURS: &str = "SUPABASE_";
/// The same, which no flag leaves to it: who has them tells in our name, or opens an encrypted history.
const ALWAYS_OURS: [&str; 2] = ["SIDECAR_WEBHOOK_", "SIDECAR_IDENTITY"];

/// Where `exec` looks when there is no `PATH`, as the C library does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// A command that can be started: it was looked up before anything else was done.
#[derive(Debug)]
pub struct BotCommand {
    words: Vec<OsString>,
    pass_env: bool,
}

impl BotCommand {
    /// Looks the program up as a shell does. Its environment will lack `SUPABASE_*` unless `pass_env`.
    ///
    /// # Errors
    /// [`Code::Usage`] when there is no such program, or it cannot be executed.
    pub fn new(words: Vec<OsString>, pass_env: bool) -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let program =
            words.first().ok_or_else(|| refuse("no command was given: exec -- COMMAND [ARGUMENT…]"))?;
        find(program, &path)?;
        Ok(Self { words, pass_env })
    }
}

fn find(program: &OsStr, path: &OsStr) -> Result<(), Error> {
    let shown = program.to_string_lossy();
    let places: Vec<PathBuf> = if program.as_encoded_bytes().contains(&b'/') {
        vec![program.into()]
    } else {
        std::env::split_paths(path).map(|dir| dir.join(program)).collect()
    };
    let mut files = places.iter().filter(|place| place.is_file()).peekable();
    if files.peek().is_none() {
        return Err(refuse(format!("the command `{shown}` cannot be found: check its name and PATH")));
    }
    if files.any(|file| rustix::fs::access(file, Access::EXEC_OK).is_ok()) {
        return Ok(());
    }
    Err(refuse(format!("the command `{shown}` is not executable: chmod +x, or name its interpreter")))
}

fn refuse(why: impl Into<String>) -> Error {
    Error::new(Code::Usage, why)
}

/// Takes our secrets out of a child's environment, but for those of Supabase where it is to have them.
pub(super) fn hide_secrets(command: &mut Command, pass_supabase: bool) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ALWAYS_OURS.iter().any(|ours| text.starts_with(ours)) || !pass_supabase && text.starts_with(OURS) {
            command.env_remove(&name);
        }
    }
}

/// A running bot.
#[derive(Debug)]
pub struct Bot {
    child: Child,
    group: Pid,
}

/// Sends signals to a bot that somebody else waits for.
#[derive(Debug, Clone, Copy)]
pub struct Group(Pid);

impl Group {
    /// A process group by its id.
    #[must_use]
    pub(super) fn new(id: Pid) -> Self {
        Self(id)
    }

    /// Its id, which is that of the bot itself.
    #[must_use]
    pub(super) fn id(self) -> Pid {
        self.0
    }

    /// Sends a signal to the whole group; one that is gone is no error.
    pub fn signal(self, signal: Signal) {
        if let Err(error) = kill_process_group(self.0, signal)
            && error != rustix::io::Errno::SRCH
        {
            warn!(%error, "the bot could not be signalled");
        }
    }
}

impl Bot {
    /// Starts it in a process group of its own, so that it can be stopped whole.
    ///
    /// # Errors
    /// [`Code::Usage`] when it cannot be run.
    pub fn start(command: &BotCommand) -> Result<Self, Error> {
        let program = &command.words[0];
        let mut start = Command::new(program);
        start.args(&command.words[1..]).process_group(0).kill_on_drop(true);
        hide_secrets(&mut start, command.pass_env);
        let shown = program.to_string_lossy();
        let child = start
            .spawn()
            .map_err(|error| refuse(format!("the command `{shown}` cannot be started")).because(error))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = group
            .ok_or_else(|| Error::new(Code::Internal, "the command ended before it had a process id"))?;
        info!(pid = group.as_raw_nonzero().get(), "bot started");
        Ok(Self { child, group })
    }

    /// Its process group.
    #[must_use]
    pub fn group(&self) -> Group {
        Group(self.group)
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> Result<u8, Error> {
        let status = self.child.wait().await;
        Ok(code_of(
            status.map_err(|error| {
                Error::new(Code::Internal, "the bot could not be waited for").because(error)
            })?,
        ))
    }

    /// Ends what is left of the group after the bot's own end: a helper process must not go on writing.
    pub fn end_group(&self) {
        self.group().signal(Signal::KILL);
    }

    /// Stops it: this signal to the group, SIGKILL to what is left of it after `patience`.
    pub async fn stop(&mut self, signal: Signal, patience: Duration) -> Result<u8, Error> {
        self.group().signal(signal);
        // One that a terminal stopped would never see it.
        self.group().signal(Signal::CONT);
        let ended = timeout(patience, self.wait()).await;
        self.end_group();
        if let Ok(code) = ended {
            code
        } else {
            warn!(?patience, "the bot did not stop in time and was killed");
            self.wait().await
        }
    }
}

/// The exit code as a shell gives it: 128 + n for a signal.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Bot {
        let words = ["sh", "-c", script].map(OsString::from).to_vec();
        Bot::start(&BotCommand::new(words, false).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_exit_code_is_passed_through() {
        assert_eq!(shell("exit 42").wait().await.unwrap(), 42);
        assert_eq!(shell("kill -9 $$").wait().await.unwrap(), 137);
    }

    #[tokio::test]
    async fn a_bot_that_ignores_sigterm_is_killed_with_its_helpers() {
        let dir = tempfile::tempdir().unwrap();
        let up = dir.path().join("up");
        let script = format!(
            "trap '' TERM; (trap '' TERM; echo $$ > {}; sleep 1000) & wait; sleep 1000",
            up.display()
        );
        let mut bot = shell(&script);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !up.exists() {
            assert!(tokio::time::Instant::now() < deadline, "the bot did not come up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(bot.stop(Signal::TERM, Duration::from_millis(50)).await.unwrap(), 137);
        let gone = kill_process_group(bot.group, Signal::CONT);
        // Zombies of the group may linger until init reaps them; nothing of it runs.
        assert!(gone.is_err() || bot.child.try_wait().unwrap().is_some());
    }

    #[test]
    fn a_program_that_is_missing_or_not_executable_is_told_from_one_that_can_start() {
        let dir = tempfile::tempdir().unwrap();
        let (tool, note) = (dir.path().join("tool"), dir.path().join("note"));
        std::fs::write(&tool, "").unwrap();
        std::fs::write(&note, "").unwrap();
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("/nowhere:{}", dir.path().display());
        let found = |program: &OsStr| find(program, path.as_ref());
        found("tool".as_ref()).unwrap();
        found(tool.as_os_str()).unwrap();
        for (program, says) in [
            ("absent".as_ref(), "cannot be found"),
            ("".as_ref(), "cannot be found"),
            ("/no/such".as_ref(), "cannot be found"),
            (dir.path().as_os_str(), "cannot be found"),
            ("note".as_ref(), "not executable"),
            (note.as_os_str(), "not executable"),
        ] {
            let error = found(program).unwrap_err();
            assert_eq!(error.code(), Code::Usage);
            assert!(error.to_string().contains(says), "{program:?}: {error}");
        }
        assert_eq!(BotCommand::new(Vec::new(), false).unwrap_err().code(), Code::Usage);
    }
}
